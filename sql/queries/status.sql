-- What `pgembed status` and `pgembed doctor` ask.

-- name: status_settings
-- For the transaction: no plan of these is worth compiling, whatever it is thought to cost, and none waits for long, or
-- runs for more than a minute where nobody has set another limit.
SELECT set_config('jit', 'off', true), set_config('lock_timeout', %(lock_timeout)s, true),
       set_config('statement_timeout', coalesce(nullif(current_setting('statement_timeout'), '0'), '60s'), true);

-- name: status_now
SELECT clock_timestamp() AS at;

-- name: status_large
-- Which of the tables whose rows would be counted one by one are too large for that: their statistics answer instead.
SELECT coalesce(array_agg(c.relname::text), '{}') AS large
  FROM pg_class c
 WHERE c.relnamespace = 'pgembed'::regnamespace AND c.relname IN ('candidate_pairs', 'code_chunks')
   AND pg_relation_size(c.oid) > %(bytes)s;

-- name: status_counts
-- Counts read indexes alone where they are not too far behind (VACUUM); pairs and docstrings need the table itself, but
-- no text: 40 ms each at 1.2 million pairs and 91,505 chunks.
SELECT (SELECT count(*) FROM pgembed.sources)                                   AS sources,
       (SELECT count(*) FROM pgembed.source_files)                              AS files,
       (SELECT count(*) FROM pgembed.code_chunks)                               AS chunks,
       CASE WHEN 'code_chunks' = ANY (%(large)s::text[])
            THEN (SELECT (greatest(c.reltuples, 0) * (1 - coalesce(s.null_frac, 0)))::bigint
                    FROM pg_class c
                    LEFT JOIN pg_stats s
                      ON s.schemaname = 'pgembed' AND s.tablename = c.relname AND s.attname = 'docstring'
                   WHERE c.oid = 'pgembed.code_chunks'::regclass)
            ELSE (SELECT count(*) FROM pgembed.code_chunks WHERE docstring IS NOT NULL) END  AS docstrings,
       (SELECT count(*) FROM pgembed.chunk_locations)                           AS locations,
       (SELECT count(*) FROM pgembed.tokens)                                    AS tokens,
       CASE WHEN 'candidate_pairs' = ANY (%(large)s::text[])
            THEN (SELECT greatest(c.reltuples, 0)::bigint
                    FROM pg_class c WHERE c.oid = 'pgembed.candidate_pairs'::regclass)
            ELSE (SELECT count(*) FROM pgembed.candidate_pairs) END             AS pairs,
       (SELECT count(*) FROM pgembed.rejected_items)                            AS rejected,
       pg_size_pretty(coalesce((SELECT sum(pg_total_relation_size(oid)) FROM pg_class
                                 WHERE relnamespace = 'pgembed'::regnamespace AND relkind = 'r'), 0)) AS disk;

-- name: status_sources
SELECT s.name, s.root, s.revision, s.ingested_at,
       (SELECT count(*) FROM pgembed.source_files f WHERE f.source_id = s.id)                       AS files,
       (SELECT count(DISTINCT l.chunk_id) FROM pgembed.chunk_locations l WHERE l.source_id = s.id)  AS chunks
  FROM pgembed.sources s
 ORDER BY s.name;

-- name: status_triplets
-- From the rows themselves, not from the view, which reads three texts for each: marks of a person are not taken off.
SELECT kind, split, count(*) AS triplets
  FROM pgembed.triplet_candidates
 GROUP BY kind, split
 ORDER BY kind, array_position(ARRAY['train', 'validation', 'test'], split);

-- name: status_triplet_state
-- When they were made, what has changed since, and how many marks a person has set.
SELECT (SELECT s.made_at FROM pgembed.triplet_state s)      AS made_at,
       ARRAY(SELECT * FROM pgembed.stale_inputs())          AS stale,
       (SELECT count(*) FROM pgembed.triplet_blocks) + (SELECT count(*) FROM pgembed.chunk_blocks)  AS marks;

-- name: status_pairs
-- What waits for `pgembed pairs`. Only ids are compared; whether there are tokens to compare is asked of what is left.
WITH unset AS MATERIALIZED (
    SELECT c.id FROM pgembed.code_chunks c
     WHERE NOT EXISTS (SELECT FROM pgembed.jaccard_sets s WHERE s.chunk_id = c.id)
)
SELECT (SELECT count(*) FROM unset u JOIN pgembed.code_chunks c ON c.id = u.id WHERE c.token_count > 0)  AS unprepared,
       (SELECT count(*) FROM pgembed.pair_queue)                                                        AS queued;

-- name: status_pair_run
-- The newest run of pairs and how far it is: a slice that is done knows its pairs.
SELECT r.id, r.mode, r.state, r.approximate, r.min_jaccard, r.started_at, r.finished_at,
       s.slices, s.slices_done, s.chunks, s.chunks_done
  FROM (SELECT * FROM pgembed.pair_runs ORDER BY id DESC LIMIT 1) AS r
 CROSS JOIN LATERAL (
       SELECT count(*) AS slices, count(p.pairs) AS slices_done, coalesce(sum(p.sets), 0)::bigint AS chunks,
              coalesce(sum(p.sets) FILTER (WHERE p.pairs IS NOT NULL), 0)::bigint AS chunks_done
         FROM pgembed.pair_slices p WHERE p.run_id = r.id) AS s;

-- name: status_generations
-- `rejected`: chunks that live and that the encoder gave no usable vector for. `measured`: what the newest eval saw of
-- its index.
SELECT g.id, e.name AS encoder, g.state, g.index_method, g.lists, g.probes, g.index_recall, g.row_count, g.error,
       g.created_at, g.activated_at, g.encoder_id, g.onnx_path, g.onnx_sha256,
       g.metrics ->> 'precision' AS precision,
       (SELECT count(DISTINCT c.id)
          FROM jsonb_array_elements_text(g.metrics -> 'rejected_chunks') AS r (id)
          JOIN pgembed.code_chunks c ON c.id = r.id::bigint) AS rejected,
       (g.metrics ->> 'indexed_rows')::bigint AS indexed_rows,
       (g.metrics ->> 'calibrated_rows')::bigint AS calibrated_rows,
       (SELECT jsonb_build_object('recall', v.metrics -> m.key -> 'recall', 'p50_ms', v.metrics -> m.key -> 'p50_ms',
                                  'rows', v.metrics -> m.key -> 'rows', 'queries', v.metrics -> m.key -> 'queries',
                                  'dataset', v.dataset)
          FROM pgembed.evaluations v, (VALUES ('index ' || g.id)) AS m (key)
         WHERE v.metrics ? m.key
         ORDER BY v.id DESC LIMIT 1) AS measured,
       pg_table_size(t.oid) AS vectors_bytes, pg_indexes_size(t.oid) AS index_bytes,
       EXISTS (SELECT FROM pg_inherits i
                WHERE i.inhrelid = t.oid AND i.inhparent = 'pgembed.code_embeddings'::regclass) AS attached,
       coalesce(pg_relation_size(t.oid), 0) > %(bytes)s AS is_large,
       u.n_live_tup AS rows_estimated
  FROM pgembed.generations g
  JOIN pgembed.encoders e ON e.id = g.encoder_id
  LEFT JOIN pg_class t ON t.oid = to_regclass(format('pgembed.code_embeddings_%%s', g.id))
  LEFT JOIN pg_stat_user_tables u ON u.relid = t.oid
 ORDER BY g.id;

-- name: status_attached_vectors
-- Narrow rows: the vectors stand in TOAST and are not read.
SELECT count(*) FROM pgembed.code_embeddings WHERE generation_id = %(id)s;

-- name: status_vectors
SELECT count(*) FROM {table};

-- name: status_training_runs
-- `steps` is what was planned. A loss that is not a number is null: JSON has no word for it. `steps_per_second` is that
-- of the newest steps of a run that is not finished.
SELECT r.id, r.state, r.view, r.started_at, r.finished_at, r.error,
       m.step AS last_step, CASE WHEN m.loss < 'infinity' THEN m.loss END AS last_loss,
       b.name AS base, e.name AS encoder, (r.hyperparameters ->> 'steps')::bigint AS steps,
       (r.metrics ->> 'better')::boolean AS better, (r.metrics #>> '{validation,worse}')::boolean AS worse,
       s.steps_per_second
  FROM pgembed.training_runs r
  JOIN pgembed.encoders b ON b.id = r.base_encoder_id
  LEFT JOIN pgembed.encoders e ON e.id = r.encoder_id
  LEFT JOIN LATERAL (SELECT step, loss FROM pgembed.training_metrics
                      WHERE run_id = r.id ORDER BY step DESC LIMIT 1) m ON true
  LEFT JOIN LATERAL (
       SELECT ((max(n.step) - min(n.step)) / nullif(extract(epoch FROM max(n.recorded_at) - min(n.recorded_at)), 0))
              ::double precision AS steps_per_second
         FROM (SELECT step, recorded_at FROM pgembed.training_metrics
                WHERE run_id = r.id ORDER BY step DESC LIMIT 100) AS n
        WHERE r.state = 'running') s ON true
 ORDER BY r.id DESC
 LIMIT 5;

-- name: status_errors
-- What went wrong lately: the newest three generations and three training runs with an error, and the newest item that
-- was rejected at each stage.
(SELECT 'generation' AS what, g.id, NULL AS stage, NULL AS place, g.error,
        coalesce((g.metrics ->> 'error_at')::timestamptz,
                 greatest(g.created_at, g.filled_at, g.indexed_at, g.activated_at, g.retired_at)) AS at
   FROM pgembed.generations g WHERE g.error IS NOT NULL
  ORDER BY at DESC, g.id DESC LIMIT 3)
UNION ALL
(SELECT 'training run', r.id, NULL, NULL, coalesce(r.error, 'failed'), coalesce(r.finished_at, r.started_at) AS at
   FROM pgembed.training_runs r WHERE r.state = 'failed' OR r.error IS NOT NULL
  ORDER BY at DESC, r.id DESC LIMIT 3)
UNION ALL
(SELECT DISTINCT ON (j.stage) 'rejected', j.id, j.stage,
        coalesce(nullif(concat_ws('/', s.name, j.path), ''), 'chunk ' || j.chunk_id),
        j.reason || CASE WHEN j.detail = '' THEN '' ELSE ': ' || j.detail END, j.created_at
   FROM pgembed.rejected_items j LEFT JOIN pgembed.sources s ON s.id = j.source_id
  ORDER BY j.stage, j.created_at DESC, j.id DESC)
ORDER BY at DESC NULLS LAST, what, id;

-- name: status_disk
-- Bytes by part. `indexes` are those of the generations' tables; the other parts hold their own.
SELECT coalesce(sum(rows_bytes + index_bytes), 0)::bigint AS total_bytes,
       coalesce(sum(rows_bytes + index_bytes) FILTER (WHERE part = 'chunks'), 0)::bigint    AS chunks_bytes,
       coalesce(sum(rows_bytes + index_bytes) FILTER (WHERE part = 'words'), 0)::bigint     AS words_bytes,
       coalesce(sum(rows_bytes + index_bytes) FILTER (WHERE part = 'pairs'), 0)::bigint     AS pairs_bytes,
       coalesce(sum(rows_bytes + index_bytes) FILTER (WHERE part = 'triplets'), 0)::bigint  AS triplets_bytes,
       coalesce(sum(rows_bytes)  FILTER (WHERE part = 'vectors'), 0)::bigint                AS vectors_bytes,
       coalesce(sum(index_bytes) FILTER (WHERE part = 'vectors'), 0)::bigint                AS indexes_bytes,
       coalesce(sum(rows_bytes + index_bytes) FILTER (WHERE part = 'rest'), 0)::bigint      AS rest_bytes
  FROM (SELECT pg_table_size(c.oid) AS rows_bytes, pg_indexes_size(c.oid) AS index_bytes,
               CASE WHEN c.relname ~ '^code_embeddings_\d+$' THEN 'vectors'
                    WHEN c.relname ~ '^(code_chunks|chunk_locations|source_files|sources|tokens)$' THEN 'chunks'
                    WHEN c.relname ~ '^lexical_' THEN 'words'
                    WHEN c.relname ~ '^(candidate_pairs|jaccard_|pair_|crowded_)' THEN 'pairs'
                    WHEN c.relname ~ '^(triplet_|chunk_splits)' THEN 'triplets'
                    ELSE 'rest' END AS part
          FROM pg_class c
         WHERE c.relnamespace = 'pgembed'::regnamespace AND c.relkind = 'r') AS tables;

-- name: status_sessions
-- pgembed's own commands that are connected now.
SELECT pid, application_name, state, now() - xact_start AS in_transaction_for
  FROM pg_stat_activity
 WHERE application_name LIKE 'pgembed[%%' AND pid <> pg_backend_pid() AND datname = current_database()
 ORDER BY pid;

-- name: status_leases
-- Who holds what, by the advisory locks that the commands take (vectors/lock.py, and the queries with lock in their name
-- of the other stages). A key is a hash, so the keys that there can be are made and compared: some thousand of ranges a
-- generation at ten million chunks, and none where nothing is held.
--
-- The server shows when and from where a session came to its own role, to members of pg_read_all_stats and to
-- superusers: for others `host` and `connected_at` are null.
WITH held AS MATERIALIZED (
    SELECT l.pid, l.mode, l.granted, l.objsubid, l.classid::bigint AS high, l.objid::bigint AS low,
           l.classid::bigint << 32 | l.objid::bigint AS key
      FROM pg_locks l
     WHERE l.locktype = 'advisory' AND l.pid <> pg_backend_pid()
       AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
), known AS (
    SELECT 'range' AS what, g.id AS generation_id, g.encoder_id, NULL::bigint AS run_id, NULL::bigint AS source_id,
           n * %(range)s + 1 AS first_chunk, (n + 1) * %(range)s AS last_chunk,
           hashtextextended('pgembed range ' || g.id, n) AS key
      FROM pgembed.generations g,
           generate_series(0, (SELECT coalesce(max(c.id) - 1, 0) / %(range)s FROM pgembed.code_chunks c)) AS n
     WHERE EXISTS (SELECT FROM held)
    UNION ALL
    SELECT v.what, NULL, e.id, NULL, NULL, NULL, NULL, hashtextextended(v.lock, e.id)
      FROM pgembed.encoders e,
           (VALUES ('encoder', 'pgembed reindex'), ('choosing', 'pgembed choosing')) AS v (what, lock)
    UNION ALL
    SELECT 'source', NULL, NULL, NULL, s.id, NULL, NULL, hashtextextended('pgembed.source', s.id) FROM pgembed.sources s
    UNION ALL
    SELECT v.what, NULL, NULL, NULL, NULL, NULL, NULL, hashtextextended(v.lock, 0)
      FROM (VALUES ('pairs', 'pgembed.pairs'), ('triplets', 'pgembed.triplets'), ('chunks', 'pgembed.code_chunks'))
           AS v (what, lock)
), leases AS (
    SELECT k.what, k.generation_id, k.encoder_id, k.run_id, k.source_id, k.first_chunk, k.last_chunk,
           h.pid, h.mode, h.granted
      FROM held h JOIN known k ON k.key = h.key
     WHERE h.objsubid = 1
    UNION ALL
    SELECT 'training', NULL, NULL, h.low, NULL, NULL, NULL, h.pid, h.mode, h.granted
      FROM held h
     WHERE h.objsubid = 2 AND h.high = hashtext('pgembed.train')::bigint & 4294967295
)
SELECT l.what, l.generation_id, e.name AS encoder, l.encoder_id, l.run_id, s.name AS source, l.first_chunk, l.last_chunk,
       l.mode <> 'ShareLock' AS alone, NOT l.granted AS waiting, l.pid, a.application_name, a.usename AS role,
       CASE WHEN a.backend_start IS NOT NULL
            THEN coalesce(a.client_hostname, host(a.client_addr), 'the server itself') END AS host,
       a.backend_start AS connected_at
  FROM leases l
  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
  LEFT JOIN pgembed.encoders e ON e.id = l.encoder_id
  LEFT JOIN pgembed.sources s ON s.id = l.source_id
 ORDER BY array_position(
              ARRAY['source', 'chunks', 'pairs', 'triplets', 'training', 'choosing', 'encoder', 'range'], l.what),
          l.generation_id, l.first_chunk, l.run_id, l.pid;

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
-- Tables that hold rows and have no statistics, be it from ANALYZE, autovacuum or a dump: plans on them are guesses; and
-- whether autovacuum will see to it. The queue of pairs is read whole, and holds none between two runs.
SELECT c.relname,
       current_setting('autovacuum')::boolean AND current_setting('track_counts')::boolean
       AND NOT EXISTS (SELECT FROM pg_options_to_table(c.reloptions) o
                        WHERE o.option_name = 'autovacuum_enabled' AND NOT o.option_value::boolean)
  FROM pg_class c
  LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid
 WHERE c.relnamespace = 'pgembed'::regnamespace AND c.relkind = 'r' AND c.relname <> 'pair_queue'
   AND greatest(c.reltuples, s.n_live_tup) > 1000
   AND has_table_privilege(c.oid, 'SELECT')  -- pg_stats shows the statistics of what one may read
   AND NOT EXISTS (SELECT FROM pg_stats p WHERE p.schemaname = 'pgembed' AND p.tablename = c.relname)
 ORDER BY c.relname;

-- name: doctor_search_paths
-- Who has schema pgembed on the search_path: by a setting of the role, the database or both; and a role of the same name,
-- by the default "$user", where tables of others stand in the database. Whom the schema is closed to does not see it.
WITH settings AS (
    SELECT s.setdatabase, s.setrole, substring(one.setting FROM '^search_path=(.*)$') AS path
      FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) AS one (setting)
     WHERE one.setting LIKE 'search_path=%%'
       AND s.setdatabase IN (0, (SELECT d.oid FROM pg_database d WHERE d.datname = current_database()))
), others AS (
    SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't'
                      AND n.nspname NOT IN ('pgembed', 'pgembed_tune', 'pg_catalog', 'information_schema', 'pg_toast')
                      AND NOT EXISTS (SELECT FROM pg_depend m
                                       WHERE m.classid = 'pg_class'::regclass AND m.objid = c.oid AND m.deptype = 'e')) AS there
), set_for AS (
    SELECT s.setdatabase, r.oid AS role, r.rolname::text AS role_name, s.path
      FROM settings s LEFT JOIN pg_roles r ON r.oid = s.setrole
     WHERE s.setrole = 0 OR r.rolcanlogin AND has_schema_privilege(r.oid, 'pgembed', 'USAGE')
)
SELECT whose, path, undo
  FROM (SELECT CASE WHEN role IS NULL THEN 'every role of this database' ELSE 'role ' || role_name END
               || CASE WHEN role IS NOT NULL AND setdatabase <> 0 THEN ' in this database' ELSE '' END AS whose,
               path,
               CASE WHEN role IS NULL THEN format('ALTER DATABASE %%I', current_database())
                    ELSE format('ALTER ROLE %%I', role_name)
                         || CASE WHEN setdatabase <> 0 THEN format(' IN DATABASE %%I', current_database()) ELSE '' END
               END || ' RESET search_path' AS undo
          FROM set_for
         WHERE 'pgembed' = ANY (regexp_split_to_array(replace(path, '"', ''), '\s*,\s*'))
        UNION ALL
        SELECT 'role pgembed', coalesce(found.path, '"$user", public'),
               format('ALTER ROLE pgembed IN DATABASE %%I SET search_path = public', current_database())
          FROM pg_roles r
          LEFT JOIN LATERAL (SELECT s.path FROM settings s
                              WHERE s.setrole IN (0, r.oid)
                              ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1) found ON true
         WHERE r.rolname = 'pgembed' AND r.rolcanlogin AND (SELECT there FROM others)
           AND has_schema_privilege(r.oid, 'pgembed', 'USAGE')
           AND (found.path IS NULL OR found.path LIKE '%%$user%%')) AS found
 ORDER BY whose;

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
