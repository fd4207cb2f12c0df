-- filter_clause(language, path, source, kind): the condition on code_chunks c that these filters are; '' for none.
-- $3 language, $4 path patterns, $5 source id, $6 kind, as in search_strategy. Fixed texts only.
CREATE OR REPLACE FUNCTION filter_clause(language text, path text, source text, kind text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
RETURN CASE WHEN language IS NOT NULL THEN ' AND c.language = $3' ELSE '' END
    || CASE WHEN kind IS NOT NULL THEN ' AND c.kind = $6' ELSE '' END
    || CASE WHEN path IS NULL AND source IS NULL THEN ''
            ELSE ' AND EXISTS (SELECT FROM chunk_locations l WHERE l.chunk_id = c.id'
              || CASE WHEN path   IS NOT NULL THEN ' AND l.path LIKE ANY ($4)' ELSE '' END
              || CASE WHEN source IS NOT NULL THEN ' AND l.source_id = $5'     ELSE '' END || ')' END;

COMMENT ON FUNCTION filter_clause(text, text, text, text) IS 'The condition that the filters of a search are';
