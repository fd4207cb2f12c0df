-- search_strategy(k, filters, generation, exact): how a search will be answered. One row:
--
--   generation_id  the generation that answers: the one asked for, else the active one
--   strategy       'index', 'index, filtered', 'exact' or 'exact, filtered'
--   matching       chunks that pass the filters, as the planner estimates; null without filters
--   statement      the query. $1 the vector, $2 k, $3 language, $4 path patterns, $5 source id, $6 kind
--   settings       what must hold while it is planned and run
--
-- The choice. Without filters the index answers. With filters, an exact scan of the matching chunks answers when they
-- are few: at most 1,000, or at most a tenth of the generation and 50,000. It has perfect recall, and below a tenth it
-- was the faster one too. Otherwise the index is scanned on and on until k rows passed the filters. That cures short
-- answers; recall is the calibrated one only while filter and meaning are independent.
--
-- The settings. Probes are the calibrated ones. At high probes the planner would change to a sequential scan: perfect
-- recall, ten times slower. So sequential scans, bitmap scans and sorts are off while the index answers, and the plan
-- is a walk along the index with lookups by key.
--
-- The distance is computed once a row. `SELECT 1 - (v <=> $1) … ORDER BY v <=> $1` computes both for every row that is
-- sorted, and fetches the vector from TOAST for each: OFFSET 0 keeps the planner from folding them together again. An
-- exact scan of 4,096 rows touched 16,419 pages instead of 32,803 and took 43 ms instead of 70.
--
-- Reads generations, active_generation, the catalogue. Costs less than a millisecond.
-- Raises object_not_in_prerequisite_state when nothing is active or the generation is not attached,
-- invalid_parameter_value when k is below 1 or a filter's value does not exist, undefined_object when there is no such
-- generation.
CREATE OR REPLACE FUNCTION search_strategy(
    k integer, language text, path text, source text, kind text, generation bigint, exact boolean,
    OUT generation_id bigint, OUT strategy text, OUT matching bigint, OUT statement text, OUT settings jsonb
)
LANGUAGE plpgsql VOLATILE  -- only because EXPLAIN asks for it; nothing is written
SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    chosen   generations;
    filters  text := '';
    estimate json;
BEGIN
    IF k IS NULL OR k < 1 THEN
        RAISE EXCEPTION 'k is %: a search returns at least one row', coalesce(k::text, 'null')
              USING ERRCODE = 'invalid_parameter_value';
    END IF;

    search_strategy.generation_id := coalesce(generation, (SELECT a.generation_id FROM active_generation a));
    IF search_strategy.generation_id IS NULL THEN
        RAISE EXCEPTION 'no generation is active'
              USING ERRCODE = 'object_not_in_prerequisite_state',
                    HINT = 'Embed the chunks and activate the result: pgembed reindex --activate';
    END IF;
    SELECT * INTO chosen FROM generations g WHERE g.id = search_strategy.generation_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no generation %', search_strategy.generation_id
              USING ERRCODE = 'undefined_object', HINT = 'Generations are listed by: pgembed generations list';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_inherits i
                    WHERE i.inhparent = 'code_embeddings'::regclass AND NOT i.inhdetachpending
                      AND i.inhrelid = to_regclass(format('pgembed.code_embeddings_%s', chosen.id))) THEN
        RAISE EXCEPTION 'generation % cannot be searched: it is %', chosen.id, chosen.state
              USING ERRCODE = 'object_not_in_prerequisite_state',
                    HINT = 'Finish it: pgembed reindex';
    END IF;

    filters := filter_clause(language, path, source, kind);
    IF filters <> '' THEN
        EXECUTE 'EXPLAIN (FORMAT JSON) SELECT FROM code_chunks c WHERE true' || filters INTO estimate
          USING NULL::vector, k, language, path_patterns(path), source_id(source), kind;
        matching := (estimate -> 0 -> 'Plan' ->> 'Plan Rows')::bigint;
        exact := exact OR matching <= greatest(1000, least(chosen.row_count / 10, 50000));
    END IF;

    strategy := CASE WHEN exact THEN 'exact' ELSE 'index' END || CASE WHEN filters = '' THEN '' ELSE ', filtered' END;
    -- Only the generation's number and fixed texts enter the statement; everything a user gives is a parameter.
    IF exact THEN
        settings := '{"jit": "off"}';
        statement := format(
            'SELECT n.chunk_id, 1 - n.distance AS score'
            '  FROM (SELECT v.chunk_id, v.embedding <=> $1 AS distance'
            '          FROM code_embeddings v%s WHERE v.generation_id = %s%s OFFSET 0) n'
            ' ORDER BY n.distance, n.chunk_id LIMIT $2',
            CASE WHEN filters = '' THEN '' ELSE ' JOIN code_chunks c ON c.id = v.chunk_id' END, chosen.id, filters);
        RETURN;
    END IF;

    settings := jsonb_build_object('jit', 'off', 'max_parallel_workers_per_gather', '0', 'enable_seqscan', 'off',
                                   'enable_bitmapscan', 'off', 'enable_sort', 'off')
        || CASE chosen.index_method
           WHEN 'ivfflat' THEN jsonb_build_object('ivfflat.probes', coalesce(chosen.probes, 1),
                                                  'ivfflat.max_probes', chosen.lists,
                                                  'ivfflat.iterative_scan', 'relaxed_order')
           ELSE jsonb_build_object('hnsw.ef_search', coalesce(chosen.probes, 40),
                                   'hnsw.max_scan_tuples', 2147483647,
                                   'hnsw.iterative_scan', 'relaxed_order')
           END;
    -- The index orders by half precision, or by bits; the score, and the order of what is returned, are exact.
    -- Bits find candidates only: as many as the calibrated effort, and the best k of these by the full vectors.
    statement := format(
        'SELECT n.chunk_id, 1 - n.distance AS score'
        '  FROM (SELECT nearest.chunk_id, nearest.embedding <=> $1 AS distance'
        '          FROM (SELECT v.chunk_id, v.embedding'
        '                  FROM code_embeddings v%s WHERE v.generation_id = %s%s'
        '                 ORDER BY %s LIMIT %s) nearest OFFSET 0) n'
        ' ORDER BY n.distance, n.chunk_id LIMIT $2',
        CASE WHEN filters = '' THEN '' ELSE ' JOIN code_chunks c ON c.id = v.chunk_id' END, chosen.id, filters,
        CASE chosen.index_method
        WHEN 'binary' THEN 'binary_quantize(v.embedding)::bit(2560) <~> binary_quantize($1)::bit(2560)'
        ELSE 'v.embedding::halfvec(2560) <=> $1::halfvec(2560)' END,
        CASE chosen.index_method WHEN 'binary' THEN format('greatest($2, %s)', coalesce(chosen.probes, 40)) ELSE '$2' END);
END;
$$;

COMMENT ON FUNCTION search_strategy(integer, text, text, text, text, bigint, boolean)
    IS 'How a search will be answered: by which generation, by its index or exactly, with which statement and settings';
