-- Removes the functions of approximate pairs and the estimate, so that those before them can be made again.
DROP FUNCTION jaccard_estimate(integer, integer, integer, integer, integer),
              jaccard_band_pairs_of(bigint[], integer, integer, integer), jaccard_band_pairs(integer, integer, integer),
              jaccard_band_join(integer, integer, integer, integer, bigint, integer, bigint),
              jaccard_band_candidates(integer, integer, integer, integer, bigint, integer, bigint),
              jaccard_crowd(integer, boolean), jaccard_sign(integer, integer, bigint, bigint),
              minhash_signatures(bigint[], integer, integer), minhash_token(text), minhash_coefficient(text, integer),
              band_recall(double precision, integer, integer);
