-- filter_clause(language, path, source, kind): the condition on code_chunks c that these filters are; '' for none.
-- $3 language, $4 path patterns, $5 source id, $6 kind, as in search_strategy. Fixed texts only.
--
-- A language, kind or source that does not exist is refused: it is a slip of the pen, and an empty answer would hide it.
-- One that exists and has no chunk in common with the other filters is none, nor is a path: both find nothing.
-- min() over an index is one look-up; EXISTS might read the table until it meets the value.
-- Raises invalid_parameter_value, with the values that exist as its hint.
CREATE OR REPLACE FUNCTION filter_clause(language text, path text, source text, kind text) RETURNS text
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
#variable_conflict use_variable
BEGIN
    IF language <> (SELECT coalesce(min(c.language), '') FROM code_chunks c WHERE c.language >= language) THEN
        PERFORM refuse_filter('language', language);
    END IF;
    IF kind <> (SELECT coalesce(min(c.kind), '') FROM code_chunks c WHERE c.kind >= kind) THEN
        PERFORM refuse_filter('kind', kind);
    END IF;
    IF source_id(source) = 0 THEN
        PERFORM refuse_filter('source', source);
    END IF;
    RETURN CASE WHEN language IS NOT NULL THEN ' AND c.language = $3' ELSE '' END
        || CASE WHEN kind IS NOT NULL THEN ' AND c.kind = $6' ELSE '' END
        || CASE WHEN path IS NULL AND source IS NULL THEN ''
                ELSE ' AND EXISTS (SELECT FROM chunk_locations l WHERE l.chunk_id = c.id'
                  || CASE WHEN path   IS NOT NULL THEN ' AND l.path LIKE ANY ($4)' ELSE '' END
                  || CASE WHEN source IS NOT NULL THEN ' AND l.source_id = $5'     ELSE '' END || ')' END;
END;
$$;

COMMENT ON FUNCTION filter_clause(text, text, text, text)
    IS 'The condition that the filters of a search are; an error for a value that does not exist';
