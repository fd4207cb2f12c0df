-- The values that the filters of a search may have, and the error for one that does not exist.
--
-- A value exists where the database has it: languages and kinds are those of the chunks, since packages add their own.

-- filter_values(filter): what there is of 'language', 'kind' or 'source', in order.
-- A walk along the index from one value to the next: as many steps as there are values, however many chunks.
CREATE FUNCTION filter_values(filter text) RETURNS SETOF text
LANGUAGE sql STABLE ROWS 10 SET search_path FROM CURRENT
AS $$
    WITH RECURSIVE languages AS (
        SELECT min(c.language) AS value FROM code_chunks c
         UNION ALL
        SELECT (SELECT min(c.language) FROM code_chunks c WHERE c.language > l.value) FROM languages l WHERE l.value IS NOT NULL
    ), kinds AS (
        SELECT min(c.kind) AS value FROM code_chunks c
         UNION ALL
        SELECT (SELECT min(c.kind) FROM code_chunks c WHERE c.kind > k.value) FROM kinds k WHERE k.value IS NOT NULL
    )
    SELECT l.value FROM languages l WHERE filter_values.filter = 'language' AND l.value IS NOT NULL
     UNION ALL
    SELECT k.value FROM kinds k WHERE filter_values.filter = 'kind' AND k.value IS NOT NULL
     UNION ALL
    SELECT s.name FROM sources s WHERE filter_values.filter = 'source'
     ORDER BY 1;
$$;

COMMENT ON FUNCTION filter_values(text) IS 'The languages, kinds or sources that a search can be limited to';

-- nearest_name(wanted, names): the name that is most likely meant; null where none is near.
-- By Jaccard over pairs of neighbouring letters, the ends included: pyton and python share 5 of 8, rsut and rust 2 of 8.
CREATE FUNCTION nearest_name(wanted text, names text[]) RETURNS text
LANGUAGE sql IMMUTABLE STRICT SET search_path FROM CURRENT
AS $$
    WITH pairs AS (
        SELECT DISTINCT word.text, substr('^' || lower(word.text) || '$', place, 2) AS pair
          FROM unnest(nearest_name.names || nearest_name.wanted) AS word (text)
         CROSS JOIN LATERAL generate_series(1, length(word.text) + 1) AS place
    ), counted AS (
        SELECT p.text, count(*) AS own, count(w.pair) AS shared
          FROM pairs p
          LEFT JOIN pairs w ON w.text = nearest_name.wanted AND w.pair = p.pair
         GROUP BY p.text
    )
    SELECT c.text
      FROM counted c
      JOIN counted w ON w.text = nearest_name.wanted
     WHERE c.text <> nearest_name.wanted AND 4 * c.shared >= c.own + w.own - c.shared
     ORDER BY c.shared::float8 / (c.own + w.own - c.shared) DESC, c.text
     LIMIT 1;
$$;

-- refuse_filter(filter, value): raise the error that says that `value` does not exist, and what does.
-- In an empty database there is nothing to choose from, and the empty answer is right: then it returns.
CREATE FUNCTION refuse_filter(filter text, value text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    there   text[] := ARRAY(SELECT filter_values(filter));
    meant   text;
    shown   text;
BEGIN
    IF there = '{}' THEN
        RETURN;
    END IF;
    meant := nearest_name(left(value, 100), there);
    shown := (SELECT string_agg(left(name, 60), ', ' ORDER BY place)
                FROM unnest(there) WITH ORDINALITY AS t (name, place) WHERE place <= 20);
    RAISE EXCEPTION '%', format(CASE filter WHEN 'language' THEN 'no chunk is in the language ''%s'''
                                            WHEN 'kind'     THEN 'no chunk is of the kind ''%s'''
                                            ELSE 'there is no source ''%s''' END, left(value, 100))
          USING ERRCODE = 'invalid_parameter_value', COLUMN = filter,
                HINT = coalesce('Did you mean ' || left(meant, 60) || '? ', '') || 'There are: ' || shown
                    || CASE WHEN cardinality(there) > 20 THEN format(' and %s more', cardinality(there) - 20) ELSE '' END
                    || '.';
END;
$$;
