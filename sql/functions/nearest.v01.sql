-- nearest(query, k, filters, generation, exact): the k chunks nearest to a vector, best first, and their scores.
--
-- score is the cosine similarity, -1 to 1, in full precision. k rows come back whenever k chunks pass the filters.
-- All of them are of one generation. The settings that the search needs hold during the call and are restored.
-- How it is answered: search_strategy. What the hits look like: search.
--
-- Reads generations, code_embeddings, code_chunks, chunk_locations; writes nothing.
-- Raises what search_strategy raises, and invalid_parameter_value for a vector that has no direction or another width.
CREATE FUNCTION nearest(
    query vector(2560), k integer DEFAULT 10, language text DEFAULT NULL, path text DEFAULT NULL,
    source text DEFAULT NULL, kind text DEFAULT NULL, generation bigint DEFAULT NULL, exact boolean DEFAULT false
)
RETURNS TABLE (chunk_id bigint, score double precision)
LANGUAGE plpgsql STABLE
ROWS 10
SET search_path FROM CURRENT
AS $$
#variable_conflict use_variable
DECLARE
    chosen record;
    before jsonb;
    ids    bigint[];
    scores double precision[];
BEGIN
    IF query IS NULL OR vector_dims(query) <> 2560 OR vector_norm(query) = 0 THEN
        RAISE EXCEPTION 'the query must be a vector of 2560 dimensions, not all zero; it is %',
              CASE WHEN query IS NULL THEN 'null'
                   WHEN vector_dims(query) <> 2560 THEN format('of %s dimensions', vector_dims(query))
                   ELSE 'all zero' END
              USING ERRCODE = 'invalid_parameter_value',
                    HINT = 'A smaller model fills the front; pad the rest with zeros.';
    END IF;
    -- The index compares half precision, which holds neither very long vectors nor very short ones.
    query := l2_normalize(query);
    chosen := search_strategy(k, language, path, source, kind, generation, exact);
    before := swap_settings(chosen.settings);
    EXECUTE format('SELECT array_agg(chunk_id ORDER BY score DESC, chunk_id),'
                   '       array_agg(score ORDER BY score DESC, chunk_id) FROM (%s) found', chosen.statement)
       INTO ids, scores
      USING query, k, language, path_patterns(path), source_id(source), kind;
    PERFORM swap_settings(before);
    IF coalesce(cardinality(ids), 0) < k AND chosen.strategy LIKE 'index%' THEN
        -- The index ran out of rows (a graph has nodes that no path reaches): an exact scan finds what there is.
        RETURN QUERY SELECT n.chunk_id, n.score
                       FROM nearest(query, k, language, path, source, kind, chosen.generation_id, true) n;
    ELSE
        RETURN QUERY SELECT * FROM unnest(ids, scores);
    END IF;
END;
$$;

COMMENT ON FUNCTION nearest(vector, integer, text, text, text, text, bigint, boolean)
    IS 'The k chunks nearest to a vector in one generation, by cosine similarity';
