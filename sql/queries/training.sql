-- Training. {view} is put in by the driver as a quoted identifier.

-- name: training_fingerprint
SELECT md5(string_agg(md5(anchor || chr(1) || positive || chr(1) || negative), '' ORDER BY ordinal)), count(*)
  FROM {view}
 WHERE split = %(split)s
   AND (%(kind)s::text IS NULL OR kind = %(kind)s)
   AND (%(language)s::text IS NULL OR language = %(language)s);

-- name: training_triplets
SELECT ordinal, anchor, positive, negative
  FROM {view}
 WHERE split = %(split)s
   AND (%(kind)s::text IS NULL OR kind = %(kind)s)
   AND (%(language)s::text IS NULL OR language = %(language)s)
 ORDER BY ordinal
OFFSET %(skip)s;

-- name: find_training_run
-- The newest run that was told exactly this.
SELECT id, state, checkpoint_path FROM pgembed.training_runs
 WHERE view = %(view)s AND filters = %(filters)s AND seed = %(seed)s AND hyperparameters = %(hyperparameters)s
   AND data_fingerprint = %(data_fingerprint)s AND base_encoder_id = %(base_encoder_id)s
 ORDER BY id DESC LIMIT 1;

-- name: insert_training_run
INSERT INTO pgembed.training_runs (state, view, filters, seed, hyperparameters, data_fingerprint, base_encoder_id,
                                   package_version)
VALUES ('running', %(view)s, %(filters)s, %(seed)s, %(hyperparameters)s, %(data_fingerprint)s, %(base_encoder_id)s,
        %(package_version)s)
RETURNING id;

-- name: training_try_lock
SELECT pg_try_advisory_lock(hashtext('pgembed.train'), %(run_id)s::integer);

-- name: training_unlock
SELECT pg_advisory_unlock(hashtext('pgembed.train'), %(run_id)s::integer);

-- name: restart_training_run
UPDATE pgembed.training_runs SET state = 'running', error = NULL WHERE id = %(run_id)s;

-- name: forget_training_metrics
-- Steps after the checkpoint that a resume starts from: they are done again.
DELETE FROM pgembed.training_metrics WHERE run_id = %(run_id)s AND step > %(step)s;

-- name: insert_training_metric
INSERT INTO pgembed.training_metrics (run_id, step, loss, gradient_norm, learning_rate, zero_loss_share,
                                      triplets_per_second)
VALUES (%(run_id)s, %(step)s, %(loss)s, %(gradient_norm)s, %(learning_rate)s, %(zero_loss_share)s,
        %(triplets_per_second)s);

-- name: finish_training_run
UPDATE pgembed.training_runs
   SET state = 'finished', encoder_id = %(encoder_id)s, checkpoint_path = %(checkpoint_path)s, metrics = %(metrics)s,
       finished_at = now()
 WHERE id = %(run_id)s;

-- name: fail_training_run
UPDATE pgembed.training_runs SET state = 'failed', error = %(error)s, finished_at = now() WHERE id = %(run_id)s;

-- name: finished_training_run
SELECT id, checkpoint_path, metrics FROM pgembed.training_runs
 WHERE state = 'finished' AND (%(run_id)s::bigint IS NULL OR id = %(run_id)s)
 ORDER BY id DESC LIMIT 1;
