-- copies_of(chunk, above, least_copy, filters): how many chunks that pass the filters are copies of this one and of none
-- in `above`; the nearest 20 of them as JSON.
--
-- Most chunks have no copy. That is found by a statement whose plan the session keeps; planning the other one anew for each
-- hit took half of a search by vectors.
CREATE OR REPLACE FUNCTION copies_of(
    chunk bigint, above bigint[], least_copy double precision, language text, path text, source text, kind text,
    OUT copies bigint, OUT also jsonb
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
#variable_conflict use_variable
BEGIN
    copies := 0;
    IF NOT EXISTS (SELECT FROM candidate_pairs p WHERE p.chunk_a = chunk AND p.jaccard >= least_copy)
       AND NOT EXISTS (SELECT FROM candidate_pairs p WHERE p.chunk_b = chunk AND p.jaccard >= least_copy) THEN
        RETURN;
    END IF;
    EXECUTE
        'WITH copy AS ('
        '    SELECT p.chunk_b AS id, p.jaccard FROM candidate_pairs p WHERE p.chunk_a = $1 AND p.jaccard >= $7'
        '    UNION ALL'
        '    SELECT p.chunk_a, p.jaccard FROM candidate_pairs p WHERE p.chunk_b = $1 AND p.jaccard >= $7'
        '), own AS ('
        '    SELECT c.id, copy.jaccard, c.language, c.kind, c.symbol,'
        '           row_number() OVER (ORDER BY copy.jaccard DESC, c.id) AS place'
        '      FROM copy JOIN code_chunks c ON c.id = copy.id'
        '     WHERE NOT EXISTS (SELECT FROM unnest($2) AS a (id) WHERE a.id = c.id)'
        '       AND NOT EXISTS (SELECT FROM candidate_pairs p'
        '                        WHERE p.chunk_a = c.id AND p.chunk_b = ANY ($2) AND p.jaccard >= $7)'
        '       AND NOT EXISTS (SELECT FROM candidate_pairs p'
        '                        WHERE p.chunk_b = c.id AND p.chunk_a = ANY ($2) AND p.jaccard >= $7)'
        || filter_clause(language, path, source, kind) ||
        ') SELECT (SELECT count(*) FROM own), ('
        '    SELECT jsonb_agg(jsonb_build_object('
        '               ''chunk_id'', own.id, ''jaccard'', own.jaccard, ''language'', own.language, ''kind'', own.kind,'
        '               ''symbol'', coalesce(nullif(spot.symbol, ''''), own.symbol), ''source'', spot.source_name,'
        '               ''path'', spot.file, ''start_line'', spot.start_line, ''end_line'', spot.end_line,'
        '               ''locations'', (SELECT count(*) FROM chunk_locations l WHERE l.chunk_id = own.id))'
        '               ORDER BY own.place)'
        '      FROM own LEFT JOIN LATERAL first_place(own.id, $8, $9) spot ON true'
        '     WHERE own.place <= 20)'
       INTO copies, also
      USING chunk, above, language, path_patterns(path), source_id(source), kind, least_copy, path, source;
END;
$$;
