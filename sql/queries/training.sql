-- Training. {view} is put in by the driver as a quoted identifier.

-- name: training_fingerprint
-- Each triplet is hashed by itself: texts of any total length come down to 32 bytes a row.
SELECT encode(sha256(string_agg(sha256(convert_to(
           concat_ws(chr(1), kind, anchor, positive, negative), 'UTF8')), ''::bytea ORDER BY ordinal)), 'hex'),
       count(*), count(*) FILTER (WHERE num_nulls(anchor, positive, negative) > 0)
  FROM {view}
 WHERE split = %(split)s
   AND (%(kind)s::text IS NULL OR kind = %(kind)s)
   AND (%(language)s::text IS NULL OR language = %(language)s);

-- name: training_count
SELECT count(*) FROM {view}
 WHERE split = %(split)s
   AND (%(kind)s::text IS NULL OR kind = %(kind)s)
   AND (%(language)s::text IS NULL OR language = %(language)s);

-- name: training_triplets
SELECT ordinal, kind, anchor, positive, negative
  FROM {view}
 WHERE split = %(split)s
   AND (%(kind)s::text IS NULL OR kind = %(kind)s)
   AND (%(language)s::text IS NULL OR language = %(language)s)
 ORDER BY ordinal
OFFSET %(skip)s;

-- name: split_triplets
SELECT ordinal, kind, anchor, positive, negative
  FROM {view}
 WHERE split = %(split)s
   AND (%(kind)s::text IS NULL OR kind = %(kind)s)
   AND (%(language)s::text IS NULL OR language = %(language)s)
   AND num_nulls(anchor, positive, negative) = 0
 ORDER BY ordinal
 LIMIT %(limit)s;

-- name: find_training_run
-- The newest run that was told exactly this.
SELECT id, state, checkpoint_path, metrics FROM pgembed.training_runs
 WHERE view = %(view)s AND filters = %(filters)s AND seed = %(seed)s AND hyperparameters = %(hyperparameters)s
   AND data_fingerprint = %(data_fingerprint)s AND base_encoder_id = %(base_encoder_id)s
   AND validation_fingerprint IS NOT DISTINCT FROM %(validation_fingerprint)s
 ORDER BY id DESC LIMIT 1;

-- name: insert_training_run
INSERT INTO pgembed.training_runs (state, view, filters, seed, hyperparameters, data_fingerprint, base_encoder_id,
                                   validation_fingerprint, package_version, code_revision)
VALUES ('running', %(view)s, %(filters)s, %(seed)s, %(hyperparameters)s, %(data_fingerprint)s, %(base_encoder_id)s,
        %(validation_fingerprint)s, %(package_version)s, %(code_revision)s)
RETURNING id;

-- name: training_try_lock
SELECT pg_try_advisory_lock(hashtext('pgembed.train'), %(run_id)s::integer);

-- name: training_unlock
SELECT pg_advisory_unlock(hashtext('pgembed.train'), %(run_id)s::integer);

-- name: restart_training_run
UPDATE pgembed.training_runs SET state = 'running', error = NULL, finished_at = NULL WHERE id = %(run_id)s
RETURNING started_at;

-- name: forget_training_metrics
-- Steps after the checkpoint that a resume starts from: they are done again.
WITH forgotten AS (DELETE FROM pgembed.training_evaluations WHERE run_id = %(run_id)s AND step > %(step)s)
DELETE FROM pgembed.training_metrics WHERE run_id = %(run_id)s AND step > %(step)s;

-- name: insert_training_metric
INSERT INTO pgembed.training_metrics (run_id, step, loss, gradient_norm, learning_rate, zero_loss_share,
                                      triplets_per_second, anchor_cosine, anchor_deviation, update_ratio)
VALUES (%(run_id)s, %(step)s, %(loss)s, %(gradient_norm)s, %(learning_rate)s, %(zero_loss_share)s,
        %(triplets_per_second)s, %(anchor_cosine)s, %(anchor_deviation)s, %(update_ratio)s)
ON CONFLICT (run_id, step) DO NOTHING;

-- name: training_steps
SELECT step, loss, gradient_norm, learning_rate, zero_loss_share, triplets_per_second, anchor_cosine, anchor_deviation,
       update_ratio
  FROM pgembed.training_metrics WHERE run_id = %(run_id)s ORDER BY step;

-- name: insert_training_evaluation
INSERT INTO pgembed.training_evaluations (run_id, step, queries, documents, loss, ndcg_10, mrr_10, query_ndcg, query_mrr,
                                          seconds)
VALUES (%(run_id)s, %(step)s, %(queries)s, %(documents)s, %(loss)s, %(ndcg)s, %(mrr)s, %(query_ndcg)s, %(query_mrr)s,
        %(seconds)s)
ON CONFLICT (run_id, step) DO NOTHING;

-- name: training_evaluations
SELECT step, queries, documents, loss, ndcg_10 AS ndcg, mrr_10 AS mrr, query_ndcg, query_mrr, seconds
  FROM pgembed.training_evaluations WHERE run_id = %(run_id)s ORDER BY step;

-- name: training_losses
-- Mean loss of the first and of the last ten steps.
SELECT (SELECT avg(loss) FROM (SELECT loss FROM pgembed.training_metrics
                                WHERE run_id = %(run_id)s ORDER BY step LIMIT 10) AS early),
       (SELECT avg(loss) FROM (SELECT loss FROM pgembed.training_metrics
                                WHERE run_id = %(run_id)s ORDER BY step DESC LIMIT 10) AS late);

-- name: finish_training_run
UPDATE pgembed.training_runs
   SET state = 'finished', encoder_id = %(encoder_id)s, checkpoint_path = %(checkpoint_path)s, metrics = %(metrics)s,
       finished_at = now()
 WHERE id = %(run_id)s;

-- name: fail_training_run
UPDATE pgembed.training_runs SET state = 'failed', error = %(error)s, finished_at = now() WHERE id = %(run_id)s;

-- name: finished_training_run
SELECT r.id, r.checkpoint_path, e.fingerprint
  FROM pgembed.training_runs r LEFT JOIN pgembed.encoders e ON e.id = r.encoder_id
 WHERE r.state = 'finished' AND (%(run_id)s::bigint IS NULL OR r.id = %(run_id)s)
 ORDER BY r.id DESC LIMIT 1;
