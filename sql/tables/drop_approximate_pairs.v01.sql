-- Undoes 0004. Without its columns, pairs that were found approximately would pass for all there are: so the runs are
-- forgotten where the last one was approximate, and the next one is a full one.
DELETE FROM pair_runs WHERE (SELECT r.approximate FROM pair_runs r ORDER BY r.id DESC LIMIT 1);
DROP FUNCTION jaccard_estimate(integer, integer, integer, integer, integer),
              jaccard_band_pairs_of(bigint[], integer, integer, integer), jaccard_band_pairs(integer, integer, integer),
              jaccard_band_join(integer, integer, integer, integer, bigint, integer, bigint),
              jaccard_crowd(integer, boolean), jaccard_sign(integer, integer, bigint, bigint),
              minhash_signatures(bigint[], integer, integer), minhash_token(text), minhash_coefficient(text, integer),
              band_recall(double precision, integer, integer);
ALTER TABLE pair_runs
    DROP CONSTRAINT pair_runs_bands_check,
    DROP COLUMN approximate, DROP COLUMN band_rows, DROP COLUMN bands, DROP COLUMN expected_recall, DROP COLUMN copy_recall,
    DROP COLUMN measured_recall, DROP COLUMN recall_chunks, DROP COLUMN recall_pairs, DROP COLUMN crowded_buckets,
    DROP COLUMN largest_bucket, DROP COLUMN left_out;
DROP TABLE crowded_buckets, jaccard_signatures;
