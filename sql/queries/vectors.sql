-- Generations, their tables, and what fills and searches them. {table} is pgembed.code_embeddings_<id>.

-- name: use_vector_path
-- The operators of vector, wherever its extension was put: for the transaction (local), or for a session of our own.
SELECT set_config('search_path', format('pgembed, %%I, pg_temp', n.nspname), %(local)s)
  FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
 WHERE e.extname = 'vector';

-- name: try_lock_encoder
SELECT pg_try_advisory_lock(hashtextextended('pgembed reindex', %(encoder_id)s));

-- name: unlock_encoder
SELECT pg_advisory_unlock(hashtextextended('pgembed reindex', %(encoder_id)s));

-- name: try_share_encoder
SELECT pg_try_advisory_lock_shared(hashtextextended('pgembed reindex', %(encoder_id)s));

-- name: unshare_encoder
SELECT pg_advisory_unlock_shared(hashtextextended('pgembed reindex', %(encoder_id)s));

-- name: lock_choosing
SELECT pg_advisory_lock(hashtextextended('pgembed choosing', %(encoder_id)s));

-- name: unlock_choosing
SELECT pg_advisory_unlock(hashtextextended('pgembed choosing', %(encoder_id)s));

-- name: try_lock_range
SELECT pg_try_advisory_lock(hashtextextended('pgembed range ' || %(generation_id)s::bigint, %(number)s));

-- name: unlock_range
SELECT pg_advisory_unlock(hashtextextended('pgembed range ' || %(generation_id)s::bigint, %(number)s));

-- name: encoder_lock_holder
-- One of those who hold it, not this session.
SELECT a.pid, a.application_name, coalesce(a.client_hostname, host(a.client_addr), 'this machine'), a.backend_start
  FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('pgembed reindex', %(encoder_id)s)
   AND a.pid <> pg_backend_pid()
 ORDER BY a.backend_start
 LIMIT 1;

-- name: listen_for_chunks
LISTEN pgembed_chunks;

-- name: find_generation
-- The generation that `reindex` goes on with: the most finished one of these very weights, and where it is said what
-- becomes of long chunks, of one that did the same: vectors of two ways are never mixed.
SELECT id FROM pgembed.generations
 WHERE encoder_id = %(encoder_id)s AND onnx_sha256 = %(onnx_sha256)s AND state <> 'failed'
   AND coalesce(metrics ->> 'long', 'truncate') = coalesce(%(long)s, metrics ->> 'long', 'truncate')
 ORDER BY array_position(ARRAY['active', 'ready', 'retired', 'indexing', 'filling'], state), id DESC
 LIMIT 1;

-- name: find_fresh_generation
-- The unfinished one that an earlier `--fresh` left: only that starts one beside a finished one of the same weights.
SELECT id FROM pgembed.generations
 WHERE encoder_id = %(encoder_id)s AND onnx_sha256 = %(onnx_sha256)s AND index_method = %(index_method)s
   AND coalesce(metrics ->> 'long', 'truncate') = coalesce(%(long)s, metrics ->> 'long', 'truncate')
   AND state IN ('filling', 'indexing')
   AND EXISTS (SELECT FROM pgembed.generations f
                WHERE f.encoder_id = %(encoder_id)s AND f.onnx_sha256 = %(onnx_sha256)s
                  AND f.state IN ('active', 'ready', 'retired'))
 ORDER BY id DESC
 LIMIT 1;

-- name: insert_generation
INSERT INTO pgembed.generations (encoder_id, onnx_path, onnx_sha256, dims, index_method, metrics)
VALUES (%(encoder_id)s, %(onnx_path)s, %(onnx_sha256)s, %(dims)s, %(index_method)s,
        jsonb_build_object('long', %(long)s::text, 'precision', %(precision)s::text))
RETURNING id;

-- name: create_embeddings_table
-- A plain table with all that ATTACH will look for, so that it finds it and has nothing to do. The key makes a second
-- vector for a chunk impossible while the table fills, and the reference lets vectors go with their chunks; both
-- together cost the loading no more than its noise (5%%). Only the index on the vectors waits until they are in.
CREATE TABLE {table} (
    LIKE pgembed.code_embeddings,
    PRIMARY KEY (generation_id, chunk_id),
    FOREIGN KEY (chunk_id) REFERENCES pgembed.code_chunks ON DELETE CASCADE,
    CONSTRAINT {constraint} CHECK (generation_id = {id})
);

-- name: skip_embedding_statistics
-- Nothing is planned by them, and ANALYZE would detoast 30,000 vectors to gather them.
ALTER TABLE {table} ALTER COLUMN embedding SET STATISTICS 0;

-- name: get_generation
SELECT g.id, g.encoder_id, e.name AS encoder, e.fingerprint, g.onnx_path, g.onnx_sha256, g.dims, g.state,
       g.index_method, g.lists, g.probes, g.index_recall, g.row_count, g.metrics, g.error,
       g.created_at, g.filled_at, g.indexed_at, g.activated_at, g.retired_at,
       EXISTS (SELECT FROM pg_inherits i
                WHERE i.inhparent = 'pgembed.code_embeddings'::regclass AND NOT i.inhdetachpending
                  AND i.inhrelid = to_regclass(format('pgembed.code_embeddings_%%s', g.id))) AS attached
  FROM pgembed.generations g JOIN pgembed.encoders e ON e.id = g.encoder_id
 WHERE g.id = %(id)s;

-- name: list_generations
SELECT g.id, e.name AS encoder, g.state, g.index_method, g.lists, g.probes, g.index_recall, g.row_count,
       coalesce(jsonb_array_length(g.metrics -> 'rejected_chunks'), 0) AS rejected,
       coalesce(g.metrics ->> 'long', 'truncate') AS long,
       coalesce((g.metrics ->> 'long_chunks')::bigint, 0) AS long_chunks,
       g.metrics ->> 'precision' AS precision, g.onnx_sha256,
       pg_total_relation_size(to_regclass(format('pgembed.code_embeddings_%%s', g.id))) AS size_bytes,
       a.previous_id IS NOT NULL AS is_previous,
       g.onnx_path, g.error, g.created_at, g.indexed_at, g.activated_at, g.retired_at
  FROM pgembed.generations g
  JOIN pgembed.encoders e ON e.id = g.encoder_id
  LEFT JOIN pgembed.active_generation a ON a.previous_id = g.id
 ORDER BY g.id;

-- name: change_generation_state
UPDATE pgembed.generations
   SET state        = %(state)s,
       error        = %(error)s,
       metrics      = metrics - 'error_at' || CASE WHEN %(error)s::text IS NULL THEN '{}'
                                                   ELSE jsonb_build_object('error_at', now()) END,
       filled_at    = CASE WHEN %(state)s = 'indexing' THEN now() ELSE filled_at END,
       indexed_at   = CASE WHEN %(state)s = 'ready'    THEN now() ELSE indexed_at END,
       activated_at = CASE WHEN %(state)s = 'active'   THEN now() ELSE activated_at END,
       retired_at   = CASE WHEN %(state)s = 'retired'  THEN now() WHEN %(state)s = 'active' THEN NULL ELSE retired_at END
 WHERE id = %(id)s AND state = ANY (%(allowed)s)
RETURNING id;

-- name: note_generation_error
UPDATE pgembed.generations
   SET error = %(error)s, metrics = metrics || jsonb_build_object('error_at', now())
 WHERE id = %(id)s;

-- name: note_generation_artefact
UPDATE pgembed.generations
   SET onnx_path = %(onnx_path)s, error = NULL,
       metrics = metrics - 'error_at' || jsonb_build_object('precision', %(precision)s::text)
 WHERE id = %(id)s;

-- name: note_generation_metrics
UPDATE pgembed.generations SET metrics = metrics || %(metrics)s WHERE id = %(id)s;

-- name: get_index_settings
SELECT index_method, lists FROM pgembed.generations WHERE id = %(id)s;

-- name: note_generation_index
UPDATE pgembed.generations SET lists = %(lists)s WHERE id = %(id)s;

-- name: note_generation_probes
UPDATE pgembed.generations SET probes = %(probes)s, index_recall = %(index_recall)s WHERE id = %(id)s;

-- name: analyze_embeddings_table
ANALYZE {table};

-- name: count_generation_rows
UPDATE pgembed.generations SET row_count = (SELECT count(*) FROM {table}) WHERE id = %(id)s RETURNING row_count;

-- name: missing_chunks
-- The next page of a range's chunks without a vector, by key; the bound on both sides keeps a page from reading what lies
-- before.
SELECT c.id, c.content
  FROM pgembed.code_chunks c
 WHERE c.id > %(after)s AND c.id <= %(last)s AND c.id <> ALL (%(rejected)s)
   AND NOT EXISTS (SELECT FROM {table} v
                    WHERE v.generation_id = %(generation_id)s AND v.chunk_id = c.id AND v.chunk_id > %(after)s)
 ORDER BY c.id
 LIMIT %(batch)s;

-- name: read_by_key
-- A table that is being filled has no statistics worth the name: say that pages are read along the keys.
SELECT set_config('enable_hashjoin', 'off', false), set_config('enable_seqscan', 'off', false),
       set_config('jit', 'off', false);

-- name: missing_ranges
-- The ranges of ids in which chunks have no vector: range n holds the ids above n * size, up to (n + 1) * size.
SELECT (c.id - 1) / %(size)s AS number
  FROM pgembed.code_chunks c
 WHERE NOT EXISTS (SELECT FROM {table} v WHERE v.generation_id = %(generation_id)s AND v.chunk_id = c.id)
   AND c.id <> ALL (%(rejected)s)
 GROUP BY number
 ORDER BY number;

-- name: count_missing_chunks
SELECT count(*)
  FROM pgembed.code_chunks c
 WHERE NOT EXISTS (SELECT FROM {table} v WHERE v.generation_id = %(generation_id)s AND v.chunk_id = c.id)
   AND c.id <> ALL (%(rejected)s);

-- name: hold_chunks
-- Which of these still live, held until the vectors are committed. One that another session is deleting is skipped and
-- not waited for: waiting could deadlock with it. If it lives on, the next pass finds it.
SELECT id FROM pgembed.code_chunks WHERE id = ANY (%(ids)s) FOR KEY SHARE SKIP LOCKED;

-- name: reject_chunk
INSERT INTO pgembed.rejected_items (stage, chunk_id, reason, detail)
VALUES ('reindex', %(chunk_id)s, %(reason)s, %(detail)s)
ON CONFLICT (stage, source_id, path, chunk_id, reason) DO UPDATE SET detail = excluded.detail, created_at = now();

-- name: note_rejected_chunks
UPDATE pgembed.generations
   SET metrics = jsonb_set(metrics, '{rejected_chunks}',
                           coalesce(metrics -> 'rejected_chunks', '[]') || to_jsonb(%(chunk_ids)s::bigint[]))
 WHERE id = %(id)s;

-- name: count_long_chunks
UPDATE pgembed.generations
   SET metrics = jsonb_set(metrics, '{long_chunks}',
                           to_jsonb(coalesce((metrics ->> 'long_chunks')::bigint, 0) + %(count)s))
 WHERE id = %(id)s;

-- name: count_chunks
SELECT count(*) FROM pgembed.code_chunks;

-- name: attach_embeddings_table
ALTER TABLE pgembed.code_embeddings ATTACH PARTITION {table} FOR VALUES IN ({id});

-- name: detach_embeddings_table
-- Readers go on meanwhile. Not in a transaction: it is two.
ALTER TABLE pgembed.code_embeddings DETACH PARTITION {table} CONCURRENTLY;

-- name: finish_detaching
ALTER TABLE pgembed.code_embeddings DETACH PARTITION {table} FINALIZE;

-- name: partition_state
-- 'attached', 'pending' (a detach that was interrupted), or null.
SELECT CASE WHEN inhdetachpending THEN 'pending' ELSE 'attached' END
  FROM pg_inherits
 WHERE inhparent = 'pgembed.code_embeddings'::regclass
   AND inhrelid = to_regclass(format('pgembed.code_embeddings_%%s', %(id)s::bigint));

-- name: drop_embeddings_table
DROP TABLE IF EXISTS {table};

-- name: delete_generation
DELETE FROM pgembed.generations WHERE id = %(id)s;

-- name: leftover_tables
SELECT substring(c.relname FROM '\d+$')::bigint
  FROM pg_class c
 WHERE c.relnamespace = 'pgembed'::regnamespace AND c.relkind = 'r' AND c.relname ~ '^code_embeddings_\d+$'
   AND NOT EXISTS (SELECT FROM pgembed.generations g WHERE g.id = substring(c.relname FROM '\d+$')::bigint)
 ORDER BY 1;

-- name: create_ivfflat_index
CREATE INDEX {index} ON {table} USING ivfflat ((embedding::halfvec(2560)) halfvec_cosine_ops) WITH (lists = {lists});

-- name: create_hnsw_index
CREATE INDEX {index} ON {table} USING hnsw ((embedding::halfvec(2560)) halfvec_cosine_ops)
  WITH (m = 16, ef_construction = 64);

-- name: create_binary_index
CREATE INDEX {index} ON {table} USING hnsw ((binary_quantize(embedding)::bit(2560)) bit_hamming_ops)
  WITH (m = 16, ef_construction = 64);

-- name: set_index_lists
ALTER INDEX {index} SET (lists = {lists});

-- name: rebuild_index
-- Searches and inserts go on meanwhile; the index stays attached to its parent.
REINDEX INDEX CONCURRENTLY {index};

-- name: index_is_valid
SELECT coalesce((SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%(index)s)), false);

-- name: index_size
SELECT pg_relation_size(to_regclass(%(index)s));

-- name: maintenance_memory
SELECT pg_size_bytes(current_setting('maintenance_work_mem'));

-- name: set_maintenance_memory
SELECT set_config('maintenance_work_mem', %(kilobytes)s || 'kB', false);

-- name: calibration_texts
-- What people ask looks like a docstring more than like code; where there is none, the code's first lines stand in.
-- The hash of the id is a sample that is the same on every run.
SELECT coalesce(left(c.docstring, 1000), left(c.content, 200))
  FROM pgembed.code_chunks c
 ORDER BY c.docstring IS NULL, hashint8(c.id)
 LIMIT %(count)s;

-- name: all_embeddings
COPY (SELECT chunk_id, embedding FROM {table}) TO STDOUT (FORMAT BINARY);

-- name: nearest_scores
SELECT array_agg(n.score) FROM pgembed.nearest(%(query)b, %(k)s, generation => %(generation_id)s) n;

-- name: search_scores
-- All that a search by vectors gives, as a client would fetch it; the first two are looked at.
SELECT chunk_id, score, rank, language, kind, symbol, source, path, start_line, end_line, content, locations
  FROM pgembed.search(%(query)b, %(k)s, generation => %(generation_id)s);

-- name: nearest_plan
SELECT string_agg(line, E'\n') FROM pgembed.search_plan(%(query)b, %(k)s, generation => %(generation_id)s) line;

-- name: lock_active_generation
-- One activation at a time; searches read on.
LOCK TABLE pgembed.active_generation IN SHARE ROW EXCLUSIVE MODE;

-- name: get_active_generation
SELECT generation_id, previous_id FROM pgembed.active_generation;

-- name: point_to_generation
INSERT INTO pgembed.active_generation (generation_id, previous_id) VALUES (%(id)s, NULL)
ON CONFLICT (only_row) DO UPDATE
   SET generation_id = excluded.generation_id, previous_id = active_generation.generation_id, activated_at = now();

-- name: search
SELECT rank, score, chunk_id, language, kind, symbol, source, path, start_line, end_line, content, locations,
       vector_rank, vector_score, lexical_rank, lexical_score, symbol_match, copies, also
  FROM pgembed.hybrid_search(%(query)b, %(k)s, %(tokens)s, %(symbol)s, %(language)s, %(path)s, %(source)s, %(kind)s,
                             %(generation_id)s, %(exact)s, %(collapse)s, %(example)s);

-- name: time_vectors
SELECT count(*)
  FROM pgembed.nearest(%(query)b, %(depth)s, %(language)s, %(path)s, %(source)s, %(kind)s, %(generation_id)s, %(exact)s);

-- name: time_words
SELECT count(*)
  FROM pgembed.lexical_matches(%(tokens)s, %(depth)s, %(language)s, %(path)s, %(source)s, %(kind)s);

-- name: explain_vectors
SELECT * FROM pgembed.search_plan(%(query)b, %(depth)s, %(language)s, %(path)s, %(source)s, %(kind)s,
                                  %(generation_id)s, %(exact)s);

-- name: explain_words
SELECT * FROM pgembed.lexical_plan(%(tokens)s, %(depth)s, %(language)s, %(path)s, %(source)s, %(kind)s);

-- name: search_depth
-- How many ranks of each list a search of these k hits begins with.
SELECT greatest(pgembed.search_setting('candidates')::bigint, 2 * %(k)s::bigint);

-- name: search_terms
SELECT token, token_id, frequency, idf FROM pgembed.lexical_terms(%(tokens)s);

-- name: matched_terms
-- Which of these tokens each of these chunks holds.
SELECT d.chunk_id, ARRAY(SELECT h.id FROM unnest(d.token_ids) AS h (id) WHERE h.id = ANY (%(token_ids)s::integer[]))
  FROM pgembed.lexical_documents d
 WHERE d.chunk_id = ANY (%(chunk_ids)s::bigint[]);

-- name: search_settings
SELECT name, value FROM pgembed.search_settings ORDER BY name;

-- name: set_search_setting
UPDATE pgembed.search_settings SET value = %(value)s WHERE name = %(name)s;

-- name: chunks_without_words
-- Chunks that the search by words does not find yet, or only by their bodies.
SELECT (SELECT count(*) FROM pgembed.code_chunks) - (SELECT count(*) FROM pgembed.lexical_documents)
     + (SELECT count(*) FROM pgembed.lexical_documents WHERE NOT described);

-- name: chunks_at_place
-- What stands at this line of files with this path, or one that ends in it; or whose path begins with their source's name or
-- root. The innermost first. Whole paths first.
SELECT l.chunk_id, s.name, l.path, l.start_line, l.end_line, coalesce(nullif(l.symbol, ''), c.symbol)
  FROM pgembed.chunk_locations l
  JOIN pgembed.sources s ON s.id = l.source_id
  JOIN pgembed.code_chunks c ON c.id = l.chunk_id
 WHERE (l.path = %(path)s OR right(l.path, length(%(path)s) + 1) = '/' || %(path)s
        OR %(path)s IN (s.name || '/' || l.path, s.root || '/' || l.path)
        OR %(path)s = s.root AND right(s.root, length(l.path) + 1) = '/' || l.path)  -- a file that is a source of its own
   AND %(line)s BETWEEN l.start_line AND l.end_line
 ORDER BY l.path <> %(path)s, s.name, l.path, l.end_line - l.start_line, l.start_line DESC, l.chunk_id;

-- name: chunks_near_place
-- What to offer where nothing stands: the nearest chunks of such files, else files with the same name.
SELECT s.name, l.path, l.start_line, l.end_line, coalesce(nullif(l.symbol, ''), c.symbol)
  FROM pgembed.chunk_locations l
  JOIN pgembed.sources s ON s.id = l.source_id
  JOIN pgembed.code_chunks c ON c.id = l.chunk_id
 WHERE l.path = %(name)s OR right(l.path, length(%(name)s) + 1) = '/' || %(name)s
 ORDER BY NOT (l.path = %(path)s OR right(l.path, length(%(path)s) + 1) = '/' || %(path)s),
          least(abs(l.start_line - %(line)s), abs(l.end_line - %(line)s)), s.name, l.path, l.start_line
 LIMIT 5;

-- name: stored_vector
SELECT embedding FROM pgembed.code_embeddings WHERE generation_id = %(generation_id)s AND chunk_id = %(chunk_id)s;

-- What `index compare` asks. {table} is a scratch table that the end of its transaction takes away.

-- name: create_sample_table
-- Unlogged: nothing of it is worth a write-ahead log, and after a crash of the server its file is emptied.
CREATE UNLOGGED TABLE {table} (chunk_id bigint NOT NULL, embedding vector(2560) NOT NULL);

-- name: fill_sample_table
-- The hash of the id is a sample that is the same on every run.
INSERT INTO {table}
SELECT chunk_id, embedding FROM {vectors} ORDER BY hashint8(chunk_id), chunk_id LIMIT %(rows)s;

-- name: nearest_in_sample
-- As search_strategy writes it for a generation; {order} is one of the two below.
SELECT n.chunk_id, 1 - n.distance AS score
  FROM (SELECT nearest.chunk_id, nearest.embedding <=> %(query)b AS distance
          FROM (SELECT v.chunk_id, v.embedding FROM {table} v ORDER BY {order} LIMIT %(candidates)s) nearest
        OFFSET 0) n
 ORDER BY n.distance, n.chunk_id
 LIMIT %(k)s;

-- name: order_by_halves
v.embedding::halfvec(2560) <=> %(query)b::halfvec(2560)

-- name: order_by_bits
binary_quantize(v.embedding)::bit(2560) <~> binary_quantize(%(query)b)::bit(2560)

-- name: exact_in_sample
SELECT n.chunk_id, 1 - n.distance AS score
  FROM (SELECT v.chunk_id, v.embedding <=> %(query)b AS distance FROM {table} v OFFSET 0) n
 ORDER BY n.distance, n.chunk_id
 LIMIT %(k)s;

-- name: explain_sample
EXPLAIN {statement}

-- name: set_local
SELECT set_config(%(name)s, %(value)s, true);

-- name: drop_index
DROP INDEX {index};

-- name: server_versions
SELECT current_setting('server_version'), (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
       current_setting('shared_buffers');
