-- From what to what: each run with its data and base, what came of it, and the generations that hold its vectors. One row for
-- each run and generation; a run that no generation came of has one row.
--
--   SELECT run_id, base, better, generation_id, generation_state FROM pgembed.training_lineage ORDER BY run_id;
--
-- Reads training_runs, encoders, generations; costs nothing to speak of.

CREATE VIEW training_lineage AS
SELECT r.id AS run_id, r.state, r.view, r.filters, r.seed, r.data_fingerprint, r.validation_fingerprint,
       b.name AS base, b.fingerprint AS base_fingerprint, r.hyperparameters, r.package_version, r.code_revision,
       t.name AS tuned, t.fingerprint AS tuned_fingerprint, r.checkpoint_path,
       (r.metrics ->> 'last_loss')::double precision AS last_loss,
       (r.metrics ->> 'better')::boolean             AS better,
       r.metrics -> 'validation'                     AS validation,
       r.metrics -> 'alarms'                         AS alarms,
       g.id AS generation_id, g.state AS generation_state, g.activated_at, r.started_at, r.finished_at
  FROM training_runs r
  JOIN encoders b ON b.id = r.base_encoder_id
  LEFT JOIN encoders t ON t.id = r.encoder_id
  LEFT JOIN generations g ON g.encoder_id = r.encoder_id;
COMMENT ON VIEW training_lineage IS 'Training runs: view, filters, seed, base → metrics → generation.';
COMMENT ON COLUMN training_lineage.better IS
    'Whether it measured better than its base on validation triplets, beyond chance; null where there were none';
