-- Training, version 2: the health of each step, validations, and the code that trained.

-- All null for steps of older versions, and where a step could not tell (an anchor alone has no spread).
ALTER TABLE training_metrics
    ADD COLUMN anchor_cosine    double precision,      -- mean cosine of two of the step's anchors; 1: all are one vector
    ADD COLUMN anchor_deviation double precision,      -- root of the sum of their variances; 0: all are one vector
    ADD COLUMN update_ratio     double precision;      -- norm of the change of the weights, by the norm of the weights

ALTER TABLE training_runs
    ADD COLUMN code_revision          text,            -- git commit, where pgembed ran from a checkout
    ADD COLUMN validation_fingerprint text;            -- of the validation triplets; null where there were none

-- The model as it would be delivered after a step (mixed with its base), measured on validation triplets. Step 0: the base.
CREATE TABLE training_evaluations (
    run_id      bigint  NOT NULL REFERENCES training_runs ON DELETE CASCADE,
    step        integer NOT NULL,
    queries     integer NOT NULL,                      -- distinct anchors
    documents   integer NOT NULL,                      -- their positives and negatives, which are searched
    loss        double precision,                      -- null: it was not finite
    ndcg_10     double precision NOT NULL,
    mrr_10      double precision NOT NULL,
    query_ndcg  double precision[] NOT NULL,           -- of each query, in an order that all steps of a run share
    query_mrr   double precision[] NOT NULL,
    seconds     double precision NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, step)
);
