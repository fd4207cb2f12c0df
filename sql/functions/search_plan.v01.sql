-- search_plan(query, k, filters, generation, exact): how this very search would be answered, as text.
--
-- The first line names the strategy, the second the settings, then comes the planner's plan of the inner statement,
-- made under these settings. Runs nothing. Reads and raises what search_strategy reads and raises.
CREATE FUNCTION search_plan(
    query vector(2560), k integer DEFAULT 10, language text DEFAULT NULL, path text DEFAULT NULL,
    source text DEFAULT NULL, kind text DEFAULT NULL, generation bigint DEFAULT NULL, exact boolean DEFAULT false
)
RETURNS SETOF text
LANGUAGE plpgsql VOLATILE  -- only because EXPLAIN asks for it; nothing is written
SET search_path FROM CURRENT
AS $$
DECLARE
    chosen record;
    before jsonb;
    line   text;
BEGIN
    chosen := search_strategy(k, language, path, source, kind, generation, exact);
    RETURN NEXT format('generation %s: %s%s', chosen.generation_id, chosen.strategy,
                       ' (about ' || chosen.matching || ' chunks pass the filters)');
    RETURN NEXT (SELECT string_agg(key || ' = ' || value, ', ' ORDER BY key) FROM jsonb_each_text(chosen.settings));
    before := swap_settings(chosen.settings);
    FOR line IN EXECUTE 'EXPLAIN ' || chosen.statement
                  USING l2_normalize(query), k, language, path_patterns(path), source_id(source), kind
    LOOP
        -- 2,560 numbers in a line help nobody
        RETURN NEXT regexp_replace(line, '''\[?[-+0-9.,e]{40,}\]?''', '''…''', 'g');
    END LOOP;
    PERFORM swap_settings(before);
END;
$$;

COMMENT ON FUNCTION search_plan(vector, integer, text, text, text, text, bigint, boolean)
    IS 'The strategy, the settings and the plan of a search, without running it';
