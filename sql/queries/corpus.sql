-- Ingest: one slice of files at a time goes through temporary tables into rows. Every writer of chunks takes
-- lock_chunks first, so that no slice removes a chunk as an orphan while another gives it a location. Two runs over one
-- source exclude each other by lock_source, which lasts as long as the connection at most.

-- name: lock_sources
SELECT pg_advisory_xact_lock(hashtextextended('pgembed.sources', 0));

-- name: lock_chunks
SELECT pg_advisory_xact_lock(hashtextextended('pgembed.code_chunks', 0));

-- name: try_lock_source
SELECT pg_try_advisory_lock(hashtextextended('pgembed.source', %(source_id)s));

-- name: lock_source
SELECT pg_advisory_lock(hashtextextended('pgembed.source', %(source_id)s));

-- name: unlock_source
SELECT pg_advisory_unlock(hashtextextended('pgembed.source', %(source_id)s));

-- name: list_sources
SELECT id, name, root FROM pgembed.sources ORDER BY id;

-- name: delete_source
DELETE FROM pgembed.sources WHERE id = %(source_id)s;

-- name: write_source
-- Under lock_sources: adds a source, or gives the one that is there its name and root.
WITH changed AS (
    UPDATE pgembed.sources SET name = %(name)s, root = %(root)s
     WHERE id = %(id)s::bigint AND (name, root) IS DISTINCT FROM (%(name)s, %(root)s)
), added AS (
    INSERT INTO pgembed.sources (name, root) SELECT %(name)s, %(root)s WHERE %(id)s::bigint IS NULL RETURNING id
)
SELECT coalesce(%(id)s::bigint, (SELECT id FROM added));

-- name: known_files
SELECT path, sha256, size_bytes, modified_ns, language, chunker FROM pgembed.source_files WHERE source_id = %(source_id)s;

-- name: paths_below_root
-- The files of the source that stands at a root, as last ingested.
SELECT f.path FROM pgembed.source_files f JOIN pgembed.sources s ON s.id = f.source_id WHERE s.root = %(root)s;

-- name: create_slice_chunks
CREATE TEMPORARY TABLE IF NOT EXISTS slice_chunks (
    sha256 bytea, language text, kind text, symbol text, content text, docstring text, body text,
    line_count integer, tokens text[]
) ON COMMIT DELETE ROWS;

-- name: create_slice_locations
CREATE TEMPORARY TABLE IF NOT EXISTS slice_locations (
    sha256 bytea, path text, start_line integer, end_line integer, symbol text
) ON COMMIT DELETE ROWS;

-- name: create_slice_files
CREATE TEMPORARY TABLE IF NOT EXISTS slice_files (
    path text, sha256 bytea, size_bytes bigint, modified_ns bigint, language text, chunker text
) ON COMMIT DELETE ROWS;

-- name: create_slice_rejects
CREATE TEMPORARY TABLE IF NOT EXISTS slice_rejects (path text, reason text, detail text) ON COMMIT DELETE ROWS;

-- name: analyze_slice
ANALYZE pg_temp.slice_chunks, pg_temp.slice_locations, pg_temp.slice_files, pg_temp.slice_rejects;

-- name: insert_tokens
INSERT INTO pgembed.tokens (token)
SELECT DISTINCT part
  FROM pg_temp.slice_chunks, unnest(tokens) AS part
 WHERE NOT EXISTS (SELECT FROM pgembed.tokens t WHERE t.token = part)
 ORDER BY part
ON CONFLICT (token) DO NOTHING;

-- name: insert_chunks
-- Content-addressed: what is there already stays as it is. The token sets are looked up row by row: a join of the new
-- chunks with their sets was planned for one row (what an anti-join of equal hashes is guessed at), and took the square
-- of their number.
INSERT INTO pgembed.code_chunks (sha256, language, kind, symbol, content, docstring, body, token_ids, line_count)
SELECT sha256, language, kind, symbol, content, docstring, body,
       ARRAY(SELECT t.id FROM pgembed.tokens t WHERE t.token = ANY(s.tokens) ORDER BY t.id), line_count
  FROM pg_temp.slice_chunks s
 WHERE NOT EXISTS (SELECT FROM pgembed.code_chunks c WHERE c.sha256 = s.sha256)
 ORDER BY sha256
ON CONFLICT (sha256) DO NOTHING;

-- name: upsert_files
INSERT INTO pgembed.source_files (source_id, path, sha256, size_bytes, modified_ns, language, chunker)
SELECT %(source_id)s, path, sha256, size_bytes, modified_ns, language, chunker FROM pg_temp.slice_files ORDER BY path
ON CONFLICT (source_id, path) DO UPDATE
   SET sha256 = excluded.sha256, size_bytes = excluded.size_bytes, modified_ns = excluded.modified_ns,
       language = excluded.language, chunker = excluded.chunker;

-- name: delete_files
-- Files that are gone, or cannot be used any more; their locations go with them. Gives the chunks that lost a place.
WITH lost AS (
    SELECT DISTINCT chunk_id FROM pgembed.chunk_locations WHERE source_id = %(source_id)s AND path = ANY(%(paths)s)
), gone AS (
    DELETE FROM pgembed.source_files WHERE source_id = %(source_id)s AND path = ANY(%(paths)s)
)
SELECT chunk_id FROM lost;

-- name: clear_locations
-- The old places of files that were read again. Gives the chunks that stood there.
DELETE FROM pgembed.chunk_locations l
 USING pg_temp.slice_files f
 WHERE l.source_id = %(source_id)s AND l.path = f.path
RETURNING l.chunk_id;

-- name: insert_locations
INSERT INTO pgembed.chunk_locations (chunk_id, source_id, path, start_line, end_line, symbol)
SELECT c.id, %(source_id)s, s.path, s.start_line, s.end_line, s.symbol
  FROM pg_temp.slice_locations s
  JOIN pgembed.code_chunks c USING (sha256)
ON CONFLICT DO NOTHING;

-- name: delete_orphans
-- Of these chunks, those that stand nowhere any more. Pairs and vectors go with them.
DELETE FROM pgembed.code_chunks c
 WHERE c.id = ANY(%(chunk_ids)s)
   AND NOT EXISTS (SELECT FROM pgembed.chunk_locations l WHERE l.chunk_id = c.id);

-- name: note_time_stamps
-- Files that were touched and hold what they held.
UPDATE pgembed.source_files f SET modified_ns = touched.modified_ns
  FROM unnest(%(paths)s::text[], %(modified)s::bigint[]) AS touched (path, modified_ns)
 WHERE f.source_id = %(source_id)s AND f.path = touched.path AND f.modified_ns <> touched.modified_ns;

-- name: clear_rejects
-- Of these paths, what an earlier run left out for a reason that no longer holds.
DELETE FROM pgembed.rejected_items r
 WHERE r.stage = 'ingest' AND r.source_id = %(source_id)s AND r.path = ANY(%(paths)s)
   AND NOT EXISTS (SELECT FROM pg_temp.slice_rejects s WHERE s.path = r.path AND s.reason = r.reason);

-- name: insert_rejects
INSERT INTO pgembed.rejected_items AS r (stage, source_id, path, reason, detail)
SELECT 'ingest', %(source_id)s, path, reason, detail FROM pg_temp.slice_rejects ORDER BY path, reason
ON CONFLICT (stage, source_id, path, chunk_id, reason) DO UPDATE SET detail = excluded.detail, created_at = now()
   WHERE r.detail <> excluded.detail;

-- name: clear_other_rejects
-- What an earlier run left out and this one did not meet again, or could look at again and found unchanged.
DELETE FROM pgembed.rejected_items
 WHERE stage = 'ingest' AND source_id = %(source_id)s
   AND (NOT path = ANY(%(seen)s) OR reason = 'unreadable' AND path = ANY(%(unchanged)s));

-- name: count_document_frequencies
-- Exact, and set-wise: about 1.5 s at 100,000 chunks. Writes only the tokens whose count changed.
WITH counted AS (
    SELECT token_id, count(*)::integer AS documents FROM pgembed.code_chunks, unnest(token_ids) AS token_id GROUP BY 1
)
UPDATE pgembed.tokens t SET document_frequency = coalesce(c.documents, 0)
  FROM pgembed.tokens own LEFT JOIN counted c ON c.token_id = own.id
 WHERE t.id = own.id AND t.document_frequency <> coalesce(c.documents, 0);

-- name: finish_source
UPDATE pgembed.sources SET ingested_at = now(), revision = %(revision)s WHERE id = %(source_id)s;

-- name: analyze_corpus
ANALYZE pgembed.code_chunks, pgembed.chunk_locations, pgembed.tokens, pgembed.source_files, pgembed.lexical_documents;

-- name: source_totals
SELECT count(DISTINCT chunk_id), count(*) FROM pgembed.chunk_locations WHERE source_id = %(source_id)s;

-- name: rejected_by_reason
-- What a source, or with null all there is, could not use: number and a few of the paths, by reason and by outcome.
--
-- left out         nothing of it is in the database
-- partly read      a file with chunks: the rest of it is left out
-- not read again   it cannot be looked at any more; the chunks of a file, or of what is in a folder, are as they were
SELECT r.stage, o.outcome, r.reason, count(*) AS items, (array_agg(r.path ORDER BY r.path COLLATE "C"))[1:3] AS examples
  FROM pgembed.rejected_items r
 CROSS JOIN LATERAL (
       SELECT CASE WHEN r.reason = 'unreadable'
                    AND EXISTS (SELECT FROM pgembed.source_files f
                                  JOIN pgembed.chunk_locations l USING (source_id, path)
                                 WHERE f.source_id = r.source_id
                                   AND (f.path = r.path OR r.path = '.' OR starts_with(f.path, r.path || '/')))
                   THEN 'not read again'
                   WHEN EXISTS (SELECT FROM pgembed.chunk_locations l
                                 WHERE l.source_id = r.source_id AND l.path = r.path)
                   THEN 'partly read'
                   ELSE 'left out' END AS outcome) o
 WHERE %(source_id)s::bigint IS NULL OR r.source_id = %(source_id)s
 GROUP BY r.stage, o.outcome, r.reason
 ORDER BY items DESC, r.stage, o.outcome, r.reason;
