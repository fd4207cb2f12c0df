-- Tables of approximate pairs, version 1: signatures, over-full buckets, and what a run says about what it may have missed.

-- The MinHash signature of a set: one bucket for each band. Two sets that share one are compared.
CREATE TABLE jaccard_signatures (
    chunk_id  bigint PRIMARY KEY REFERENCES jaccard_sets ON DELETE CASCADE,
    band_rows integer NOT NULL,                        -- minima in a band: the same in all rows
    buckets   integer[] NOT NULL
);

-- The sets of buckets that hold more than are compared all with all, in an order in which like ones stand together.
CREATE TABLE crowded_buckets (
    bucket   integer NOT NULL,
    place    bigint  NOT NULL,
    chunk_id bigint  NOT NULL REFERENCES jaccard_sets ON DELETE CASCADE,
    PRIMARY KEY (bucket, place)
);
CREATE INDEX crowded_buckets_chunk_id_idx ON crowded_buckets (chunk_id);

ALTER TABLE pair_runs
    ADD COLUMN approximate     boolean NOT NULL DEFAULT false, -- some of candidate_pairs was found by bands, and some may be missing
    ADD COLUMN band_rows       integer,
    ADD COLUMN bands           integer,
    ADD COLUMN expected_recall double precision,       -- the least probability to be found: that of a pair at min_jaccard
    ADD COLUMN copy_recall     double precision,       -- and that of a pair at near_duplicate
    ADD COLUMN measured_recall double precision,       -- found of the pairs of a random sample; null where it has none
    ADD COLUMN recall_chunks   integer,                -- how many chunks that sample had
    ADD COLUMN recall_pairs    bigint,                 -- and how many pairs these truly have
    ADD COLUMN crowded_buckets bigint NOT NULL DEFAULT 0,
    ADD COLUMN largest_bucket  bigint NOT NULL DEFAULT 0,
    ADD COLUMN left_out        bigint NOT NULL DEFAULT 0, -- comparisons not made for the size of a bucket
    ADD CONSTRAINT pair_runs_bands_check
        CHECK (num_nulls(band_rows, bands, expected_recall, copy_recall) = CASE WHEN approximate THEN 0 ELSE 4 END);
