-- What evaluation asks. {documents} is one of the two queries below it, filled in by pgembed/evaluation/ranking.py.

-- name: prepare_ranking
-- For the transaction: the types and operators of vector, wherever its extension was put; memory for one sort; no JIT,
-- which takes longer to compile a batch's plan than it saves.
SELECT set_config('search_path', quote_ident(n.nspname) || ', pg_temp', true),
       set_config('work_mem', greatest(pg_size_bytes(current_setting('work_mem')), 96 * 1024 * 1024) / 1024 || 'kB', true),
       set_config('jit', 'off', true)
  FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
 WHERE e.extname = 'vector';

-- name: create_vectors_table
CREATE TEMPORARY TABLE {table} (id bigint PRIMARY KEY, embedding vector(2560) NOT NULL);

-- name: drop_vectors_table
DROP TABLE IF EXISTS {table};

-- name: temporary_documents
SELECT id, embedding FROM pg_temp.evaluation_documents

-- name: generation_documents
SELECT chunk_id AS id, embedding FROM pgembed.code_embeddings WHERE generation_id = {generation_id}

-- name: count_documents
SELECT count(*) FROM ({documents}) AS documents;

-- name: rank_documents
-- For each query of a batch the nearest documents, best first, by exact search on full precision; equal distances in
-- the order of the documents' ids. One row a query: its id and the ids of at most `depth` documents.
--
-- Every document is read, and fetched from TOAST, once a batch: the scan of the documents is the outer side (LATERAL
-- holds it there), and subvector gives a copy of the whole vector in memory, where the column would be fetched again for
-- each pair (OFFSET 0 keeps it from being folded into the pairs). 500 queries over 6,267 documents took 4 seconds; a
-- scan for each query took 27.
WITH batch AS MATERIALIZED (
    SELECT id, subvector(embedding, 1, 2560) AS embedding
      FROM pg_temp.evaluation_queries
     WHERE id >= %(first)s AND id < %(end)s
)
SELECT query, array_agg(document ORDER BY place)
  FROM (SELECT query, document, row_number() OVER (PARTITION BY query ORDER BY distance, document) AS place
          FROM (SELECT id AS document, subvector(embedding, 1, 2560) AS embedding
                  FROM ({documents}) AS documents
                OFFSET 0) AS flat
         CROSS JOIN LATERAL (
               SELECT batch.id AS query, flat.embedding <=> batch.embedding AS distance
                 FROM batch
               OFFSET 0) AS pairs) AS ranked
 WHERE place <= %(depth)s
 GROUP BY query;

-- name: held_out_documents
-- The documents of a held-out data set, and with each the queries that it answers (null: none).
-- Reads code_chunks, chunk_locations, chunk_splits. One row a distinct body; content and settings alone decide, ids never.
--
-- A query is a docstring of a function in the split, as training has it for an anchor; docstrings that differ in spaces
-- or capitals are one. Every body of the split that carries it answers it. Test files, trivial bodies and docstrings
-- that say too little are left out, as in mining. Bodies of other splits only fill up, and never those that carry a
-- query's docstring: nobody could call them wrong.
WITH eligible AS MATERIALIZED (
    SELECT c.body, c.symbol, c.language, btrim(c.docstring, E' \n\t\r') AS docstring, d.described,
           coalesce(s.split = %(split)s, false) AS held_out
      FROM pgembed.code_chunks c
      JOIN pgembed.chunk_splits s ON s.chunk_id = c.id
     CROSS JOIN LATERAL (
           SELECT lower(btrim(regexp_replace(c.docstring, '\s+', ' ', 'g'))) AS described) AS d
     WHERE (s.split = %(split)s OR %(fill_from_others)s)
       AND c.kind IN ('function', 'method')
       AND c.token_count >= %(min_tokens)s
       AND c.line_count BETWEEN %(min_lines)s AND %(max_lines)s
       AND EXISTS (
           SELECT FROM pgembed.chunk_locations l
            WHERE l.chunk_id = c.id
              AND l.path !~ '(^|/)(tests?|testing|__tests__|spec)/|(^|/)(test_[^/]*|conftest\.py)$|[._](test|spec)\.[a-z]+$')
), queries AS (
    SELECT described, min(docstring COLLATE "C") AS query
      FROM eligible
     WHERE held_out
       AND cardinality(string_to_array(described, ' ')) BETWEEN %(min_words)s AND %(max_words)s
     GROUP BY described
     ORDER BY sha256(convert_to(described, 'UTF8'))
     LIMIT %(max_queries)s
), bodies AS (
    SELECT e.body, min(e.symbol COLLATE "C") AS symbol, min(e.language COLLATE "C") AS language,
           bool_or(e.held_out) AS held_out,
           array_agg(DISTINCT q.query COLLATE "C") FILTER (WHERE e.held_out AND q.query IS NOT NULL) AS queries,
           bool_or(NOT e.held_out AND q.query IS NOT NULL) AS answers_elsewhere
      FROM eligible e
      LEFT JOIN queries q USING (described)
     GROUP BY e.body
), placed AS (
    SELECT body, symbol, language, queries,
           row_number() OVER (ORDER BY queries IS NULL, NOT held_out, sha256(convert_to(body, 'UTF8'))) AS place
      FROM bodies
     WHERE queries IS NOT NULL OR NOT answers_elsewhere
)
SELECT body, symbol, language, queries
  FROM placed
 WHERE queries IS NOT NULL OR place <= %(max_documents)s
 ORDER BY place;

-- name: count_split_chunks
-- All chunks, those with a split, and those in this one: what a message about an empty data set needs.
SELECT (SELECT count(*) FROM pgembed.code_chunks), count(split), count(*) FILTER (WHERE split = %(split)s)
  FROM pgembed.chunk_splits;

-- name: insert_evaluation
INSERT INTO pgembed.evaluations (encoder_id, dataset, fingerprint, documents, queries, settings, metrics, per_query)
VALUES (%(encoder_id)s, %(dataset)s, %(fingerprint)s, %(documents)s, %(queries)s, %(settings)s, %(metrics)s,
        %(per_query)s)
RETURNING id;

-- name: note_evaluation_metrics
-- What is measured beside the scores: by language, or of a generation's index.
UPDATE pgembed.evaluations SET metrics = metrics || %(metrics)s WHERE id = %(id)s;

-- name: find_evaluation
-- The newest evaluation of this encoder on this very data set with these settings; it may carry more settings.
SELECT id
  FROM pgembed.evaluations
 WHERE encoder_id IS NOT DISTINCT FROM %(encoder_id)s::bigint AND fingerprint = %(fingerprint)s AND settings @> %(settings)s
 ORDER BY id DESC
 LIMIT 1;

-- name: get_evaluation
SELECT v.id, v.encoder_id, coalesce(e.name, 'words alone') AS encoder, v.dataset, v.fingerprint, v.documents, v.queries, v.settings, v.metrics,
       v.per_query, v.created_at, %(reused)s::boolean AS reused
  FROM pgembed.evaluations v LEFT JOIN pgembed.encoders e ON e.id = v.encoder_id
 WHERE v.id = %(id)s;

-- name: encoder_lineage
-- The run that made an encoder, newest first; one row a run, whatever generations came of it.
SELECT l.run_id, l.view, l.filters, l.seed, l.data_fingerprint, l.base, l.base_fingerprint, l.hyperparameters,
       l.package_version, l.code_revision, l.tuned, l.tuned_fingerprint, l.last_loss, l.better, l.started_at, l.finished_at
  FROM pgembed.training_lineage l
 WHERE l.tuned_fingerprint = %(fingerprint)s AND l.state = 'finished'
 ORDER BY l.run_id DESC
 LIMIT 1;

-- name: encoder_identity
SELECT name, fingerprint, licence FROM pgembed.encoders WHERE id = %(id)s;

-- name: report_generation
SELECT id, state, index_method, lists, probes, index_recall, row_count, metrics -> 'calibration_curve' AS calibration
  FROM pgembed.generations
 WHERE id = %(id)s;

-- name: report_losses
SELECT step, loss FROM pgembed.training_metrics WHERE run_id = %(run_id)s ORDER BY step;

-- name: report_validations
SELECT step, ndcg_10 FROM pgembed.training_evaluations WHERE run_id = %(run_id)s ORDER BY step;
