-- What `pgembed status` and `pgembed doctor` ask.

-- name: status_counts
SELECT (SELECT count(*) FROM pgembed.sources)                                   AS sources,
       (SELECT count(*) FROM pgembed.source_files)                              AS files,
       (SELECT count(*) FROM pgembed.code_chunks)                               AS chunks,
       (SELECT count(*) FROM pgembed.code_chunks WHERE docstring IS NOT NULL)   AS docstrings,
       (SELECT count(*) FROM pgembed.chunk_locations)                           AS locations,
       (SELECT count(*) FROM pgembed.tokens)                                    AS tokens,
       (SELECT count(*) FROM pgembed.candidate_pairs)                           AS pairs,
       (SELECT count(*) FROM pgembed.rejected_items)                            AS rejected,
       pg_size_pretty(coalesce((SELECT sum(pg_total_relation_size(oid)) FROM pg_class
                                 WHERE relnamespace = 'pgembed'::regnamespace AND relkind = 'r'), 0)) AS disk;

-- name: status_sources
SELECT s.name, s.root, s.revision, s.ingested_at,
       (SELECT count(*) FROM pgembed.source_files f WHERE f.source_id = s.id)                       AS files,
       (SELECT count(DISTINCT l.chunk_id) FROM pgembed.chunk_locations l WHERE l.source_id = s.id)  AS chunks
  FROM pgembed.sources s
 ORDER BY s.name;

-- name: status_generations
SELECT g.id, e.name AS encoder, g.state, g.index_method, g.lists, g.probes, g.index_recall, g.row_count, g.error,
       g.created_at, g.activated_at
  FROM pgembed.generations g
  JOIN pgembed.encoders e ON e.id = g.encoder_id
 ORDER BY g.id;

-- name: status_training_runs
SELECT r.id, r.state, r.view, r.started_at, r.finished_at, r.error,
       m.step AS last_step, m.loss AS last_loss
  FROM pgembed.training_runs r
  LEFT JOIN LATERAL (SELECT step, loss FROM pgembed.training_metrics
                      WHERE run_id = r.id ORDER BY step DESC LIMIT 1) m ON true
 ORDER BY r.id DESC
 LIMIT 5;

-- name: status_rejected
SELECT stage, reason, count(*) AS items, min(path) AS example
  FROM pgembed.rejected_items
 GROUP BY stage, reason
 ORDER BY items DESC, stage, reason;

-- name: status_sessions
-- pgembed's own commands that are connected now.
SELECT pid, application_name, state, now() - xact_start AS in_transaction_for
  FROM pg_stat_activity
 WHERE application_name LIKE 'pgembed[%%' AND pid <> pg_backend_pid() AND datname = current_database()
 ORDER BY pid;

-- name: doctor_unvectored_chunks
-- Chunks that the active generation has no vector for: what `pgembed reindex` would add. It would not add those that
-- the encoder gave no usable vector for.
SELECT a.generation_id,
       (SELECT count(*) FROM pgembed.code_chunks c
         WHERE NOT EXISTS (SELECT FROM pgembed.code_embeddings v
                            WHERE v.generation_id = a.generation_id AND v.chunk_id = c.id)
           AND NOT coalesce(g.metrics -> 'rejected_chunks' @> to_jsonb(c.id), false))
  FROM pgembed.active_generation a JOIN pgembed.generations g ON g.id = a.generation_id;

-- name: doctor_leftover_tables
-- Tables of vectors that no generation claims.
SELECT c.relname
  FROM pg_class c
 WHERE c.relnamespace = 'pgembed'::regnamespace AND c.relkind = 'r' AND c.relname ~ '^code_embeddings_\d+$'
   AND NOT EXISTS (SELECT FROM pgembed.generations g
                    WHERE g.id = substring(c.relname FROM '\d+$')::bigint AND g.state <> 'failed')
 ORDER BY c.relname;

-- name: doctor_active_artefact
SELECT g.id, g.onnx_path, g.onnx_sha256
  FROM pgembed.active_generation a JOIN pgembed.generations g ON g.id = a.generation_id;

-- name: doctor_memory
-- Bytes of maintenance_work_mem, and chunks that the next index build will have to group into lists.
SELECT pg_size_bytes(current_setting('maintenance_work_mem')), (SELECT count(*) FROM pgembed.code_chunks);

-- name: doctor_stale_statistics
-- Tables that hold rows and were never analysed, by hand or by autovacuum: plans on them are guesses.
SELECT relname
  FROM pg_stat_user_tables
 WHERE schemaname = 'pgembed' AND n_live_tup > 1000 AND last_analyze IS NULL AND last_autoanalyze IS NULL
 ORDER BY relname;

-- name: drift_functions
SELECT p.proname::text, CASE WHEN p.prosqlbody IS NULL THEN p.prosrc END
  FROM pg_proc p WHERE p.pronamespace = 'pgembed'::regnamespace;

-- name: drift_triggers
SELECT t.tgname::text, t.tgenabled <> 'D'
  FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
 WHERE c.relnamespace = 'pgembed'::regnamespace AND NOT t.tgisinternal;

-- name: drift_indexes
SELECT c.relname::text
  FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid
 WHERE c.relnamespace = 'pgembed'::regnamespace AND i.indisvalid;

-- name: drift_columns
SELECT c.relname::text, a.attname::text
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
 WHERE c.relnamespace = 'pgembed'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped;

-- name: doctor_orphan_pairs
SELECT count(*)
  FROM pgembed.candidate_pairs p
 WHERE NOT EXISTS (SELECT FROM pgembed.code_chunks c WHERE c.id = p.chunk_a)
    OR NOT EXISTS (SELECT FROM pgembed.code_chunks c WHERE c.id = p.chunk_b);

-- name: doctor_remove_orphan_pairs
DELETE FROM pgembed.candidate_pairs p
 WHERE NOT EXISTS (SELECT FROM pgembed.code_chunks c WHERE c.id = p.chunk_a)
    OR NOT EXISTS (SELECT FROM pgembed.code_chunks c WHERE c.id = p.chunk_b);

-- name: doctor_unfinished_pairs
-- The newest run of pairs where it was left in the middle and none is at work.
SELECT r.id, r.state
  FROM (SELECT * FROM pgembed.pair_runs ORDER BY id DESC LIMIT 1) AS r
 WHERE r.state <> 'finished'
   AND NOT EXISTS (SELECT FROM pg_locks l
                    WHERE l.locktype = 'advisory'
                      AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('pgembed.pairs', 0));

-- name: doctor_analyze
ANALYZE {table};
