-- Undoes token_order.v01.sql. Sets with their ranks are made by the next `pgembed pairs`, from nothing; pairs stay.
TRUNCATE jaccard_ranks, jaccard_sets, pair_queue, jaccard_signatures, crowded_buckets;
ALTER TABLE jaccard_sets ADD COLUMN ranks integer[] NOT NULL;
ALTER TABLE jaccard_sets ALTER ranks SET STATISTICS 0, ALTER chunk_id SET STATISTICS -1, ALTER n SET STATISTICS -1;
CREATE INDEX jaccard_sets_n_idx ON jaccard_sets (n, chunk_id);
CREATE INDEX jaccard_sets_prefix_idx ON jaccard_sets USING gin (prefix);
COMMENT ON TABLE jaccard_ranks IS NULL;
COMMENT ON COLUMN jaccard_sets.prefix IS NULL;
