-- Undoes 0006; training_lineage is gone before.
DROP TABLE training_evaluations;
ALTER TABLE training_runs DROP COLUMN code_revision, DROP COLUMN validation_fingerprint;
ALTER TABLE training_metrics DROP COLUMN anchor_cosine, DROP COLUMN anchor_deviation, DROP COLUMN update_ratio;
