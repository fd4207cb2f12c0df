-- The search by words: what an ingest writes for it. A search's own queries are in vectors.sql.

-- name: create_described
CREATE TEMPORARY TABLE IF NOT EXISTS described (chunk_id bigint PRIMARY KEY, tokens text[]) ON COMMIT DELETE ROWS;

-- name: undescribed_chunks
-- The next page of chunks that have no lexical document, or one that lacks the docstring.
SELECT c.id, c.symbol, c.docstring
  FROM pgembed.code_chunks c
 WHERE c.id > %(after)s
   AND NOT EXISTS (SELECT FROM pgembed.lexical_documents d WHERE d.chunk_id = c.id AND d.described)
 ORDER BY c.id
 LIMIT %(limit)s;

-- name: insert_described_tokens
INSERT INTO pgembed.tokens (token)
SELECT DISTINCT part
  FROM pg_temp.described, unnest(tokens) AS part
 WHERE NOT EXISTS (SELECT FROM pgembed.tokens t WHERE t.token = part)
 ORDER BY part
ON CONFLICT (token) DO NOTHING;

-- name: write_lexical_documents
-- Row by row, as insert_chunks looks up its sets.
INSERT INTO pgembed.lexical_documents (chunk_id, token_ids)
SELECT c.id, ARRAY(SELECT held.id FROM unnest(c.token_ids) AS held (id)
                   UNION
                   SELECT t.id FROM pgembed.tokens t WHERE t.token = ANY (d.tokens)
                   ORDER BY 1)
  FROM pg_temp.described d
  JOIN pgembed.code_chunks c ON c.id = d.chunk_id
 ORDER BY c.id
ON CONFLICT (chunk_id) DO UPDATE SET token_ids = excluded.token_ids, described = true;

-- name: clear_described
TRUNCATE pg_temp.described;

-- name: refresh_lexical_statistics
SELECT pgembed.refresh_lexical_statistics();
