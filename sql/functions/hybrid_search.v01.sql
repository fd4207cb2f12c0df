-- Search by vectors, by words, and by both: the two rankings are fused, and copies of a hit fold into it.

-- symbol_matches(symbol, k, filters): chunks that are called exactly so: by their own name, or by the qualified one of a
-- place where they stand. Answered by two hash indexes.
CREATE FUNCTION symbol_matches(
    symbol text, k integer, language text DEFAULT NULL, path text DEFAULT NULL, source text DEFAULT NULL,
    kind text DEFAULT NULL
)
RETURNS TABLE (chunk_id bigint)
LANGUAGE plpgsql STABLE ROWS 10 SET search_path FROM CURRENT
AS $$
#variable_conflict use_variable
BEGIN
    RETURN QUERY EXECUTE
        'SELECT c.id FROM code_chunks c'
        ' WHERE c.id IN (SELECT n.id FROM code_chunks n WHERE n.symbol = $1'
        '                UNION ALL SELECT p.chunk_id FROM chunk_locations p WHERE p.symbol = $1)'
        || filter_clause(language, path, source, kind) || ' ORDER BY c.id LIMIT $2'
      USING symbol, k, language, path_patterns(path), source_id(source), kind;
END;
$$;

COMMENT ON FUNCTION symbol_matches(text, integer, text, text, text, text) IS 'Chunks of exactly this name';

-- fused(query, tokens, symbol, depth, filters, generation, exact): the `depth` best of each ranking, fused.
--
-- query   a vector of the generation's encoder; null: no ranking by vectors, and no generation is needed
-- tokens  the query's tokens; null: no ranking by words
-- symbol  the query as it stands; chunks of this very name rise. Null: none does
--
-- score is the cosine where there is a vector alone. Else it is reciprocal rank fusion: the sum, over the lists that hold
-- a chunk, of weight / (rrf_k + rank); a chunk that is called what was asked has symbol_weight / (rrf_k + 1) on top.
-- Equal scores in the order of ids. Everything that passes the filters and is in a list comes back, up to 3 · depth rows.
--
-- Source: Cormack, Clarke and Büttcher 2009, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
-- Methods"; weights as in search_settings. Raises what nearest and lexical_strategy raise.
CREATE TYPE fused_hit AS (
    place         bigint,             -- 1 is the best
    chunk_id      bigint,
    score         double precision,
    vector_rank   bigint,             -- null: not among the `depth` best of this ranking
    vector_score  double precision,   -- cosine similarity, -1 to 1
    lexical_rank  bigint,
    lexical_score double precision,   -- BM25
    symbol_match  boolean             -- the chunk is called what was asked
);

CREATE FUNCTION fused(
    query vector(2560), tokens text[], symbol text, depth integer, language text DEFAULT NULL, path text DEFAULT NULL,
    source text DEFAULT NULL, kind text DEFAULT NULL, generation bigint DEFAULT NULL, exact boolean DEFAULT false
)
RETURNS SETOF fused_hit
LANGUAGE sql STABLE ROWS 100 SET search_path FROM CURRENT
AS $$
    WITH by_vector AS MATERIALIZED (
        SELECT n.chunk_id, n.score, row_number() OVER (ORDER BY n.score DESC, n.chunk_id) AS rank
          FROM nearest(fused.query, fused.depth, fused.language, fused.path, fused.source, fused.kind,
                       fused.generation, fused.exact) n
         WHERE fused.query IS NOT NULL
    ), by_words AS MATERIALIZED (
        SELECT m.chunk_id, m.score, row_number() OVER (ORDER BY m.score DESC, m.chunk_id) AS rank
          FROM lexical_matches(fused.tokens, fused.depth, fused.language, fused.path, fused.source, fused.kind) m
         WHERE fused.tokens IS NOT NULL
    ), by_name AS MATERIALIZED (
        SELECT s.chunk_id
          FROM symbol_matches(fused.symbol, fused.depth, fused.language, fused.path, fused.source, fused.kind) s
         WHERE fused.symbol IS NOT NULL
    ), settings AS MATERIALIZED (
        SELECT search_setting('rrf_k') AS k, search_setting('vector_weight') AS vector_weight,
               search_setting('lexical_weight') AS lexical_weight, search_setting('symbol_weight') AS symbol_weight,
               fused.tokens IS NULL AND fused.symbol IS NULL AS vector_alone
    ), scored AS (
        SELECT u.chunk_id,
               CASE WHEN s.vector_alone THEN v.score
                    ELSE coalesce(s.vector_weight / (s.k + v.rank), 0) + coalesce(s.lexical_weight / (s.k + w.rank), 0)
                       + CASE WHEN n.chunk_id IS NULL THEN 0 ELSE s.symbol_weight / (s.k + 1) END END AS score,
               v.rank AS vector_rank, v.score AS vector_score, w.rank AS lexical_rank, w.score AS lexical_score,
               n.chunk_id IS NOT NULL AS symbol_match
          FROM (SELECT b.chunk_id FROM by_vector b UNION SELECT b.chunk_id FROM by_words b
                UNION SELECT b.chunk_id FROM by_name b) u
         CROSS JOIN settings s
          LEFT JOIN by_vector v USING (chunk_id)
          LEFT JOIN by_words w USING (chunk_id)
          LEFT JOIN by_name n USING (chunk_id)
    )
    SELECT row_number() OVER (ORDER BY f.score DESC, f.chunk_id), f.* FROM scored f ORDER BY 1;
$$;

COMMENT ON FUNCTION fused(vector, text[], text, integer, text, text, text, text, bigint, boolean)
    IS 'The rankings by vector, words and name, fused by reciprocal rank';

-- distinct_hits(ranked, k, least_copy, collapse, example): the first k of the ranked chunks that stand for themselves.
-- Left out: `example` and its copies, and with `collapse` what is a copy of one that was taken before it.
CREATE FUNCTION distinct_hits(
    ranked bigint[], k integer, least_copy double precision, collapse boolean, example bigint
) RETURNS bigint[]
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
DECLARE
    kept      bigint[] := '{}';
    above     bigint[] := CASE WHEN example IS NULL THEN '{}' ELSE ARRAY[example] END;
    candidate bigint;
BEGIN
    FOREACH candidate IN ARRAY ranked LOOP
        EXIT WHEN cardinality(kept) >= k;
        CONTINUE WHEN candidate = example;
        CONTINUE WHEN cardinality(above) > 0 AND (
            EXISTS (SELECT FROM candidate_pairs p
                     WHERE p.chunk_a = candidate AND p.chunk_b = ANY (above) AND p.jaccard >= least_copy)
            OR EXISTS (SELECT FROM candidate_pairs p
                        WHERE p.chunk_b = candidate AND p.chunk_a = ANY (above) AND p.jaccard >= least_copy));
        kept := kept || candidate;
        IF collapse THEN
            above := above || candidate;
        END IF;
    END LOOP;
    RETURN kept;
END;
$$;

-- first_place(chunk, path, source): the first place of a chunk, of those that pass the filters, by source and path.
CREATE FUNCTION first_place(
    chunk bigint, path text, source text,
    OUT source_name text, OUT file text, OUT start_line integer, OUT end_line integer, OUT symbol text
)
RETURNS SETOF record
LANGUAGE sql STABLE ROWS 1 SET search_path FROM CURRENT
AS $$
    SELECT s.name, l.path, l.start_line, l.end_line, l.symbol
      FROM chunk_locations l
      JOIN sources s ON s.id = l.source_id
     WHERE l.chunk_id = first_place.chunk
       AND (first_place.path   IS NULL OR l.path LIKE ANY (path_patterns(first_place.path)))
       AND (first_place.source IS NULL OR s.name = first_place.source)
     ORDER BY s.name, l.path, l.start_line
     LIMIT 1;
$$;

-- copies_of(chunk, above, least_copy, filters): how many chunks that pass the filters are copies of this one and of none
-- in `above`; the nearest 20 of them as JSON.
CREATE FUNCTION copies_of(
    chunk bigint, above bigint[], least_copy double precision, language text, path text, source text, kind text,
    OUT copies bigint, OUT also jsonb
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
#variable_conflict use_variable
BEGIN
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

CREATE TYPE hybrid_hit AS (
    rank          integer,
    score         double precision,   -- see fused
    chunk_id      bigint,
    language      text,
    kind          text,
    symbol        text,               -- the qualified name at this place, else the chunk's own
    source        text,
    path          text,
    start_line    integer,
    end_line      integer,
    content       text,
    locations     bigint,             -- places where this very code stands
    vector_rank   bigint,             -- null: not among the candidates of this ranking
    vector_score  double precision,   -- cosine similarity, -1 to 1
    lexical_rank  bigint,
    lexical_score double precision,   -- BM25
    symbol_match  boolean,            -- the chunk is called what was asked
    copies        bigint,             -- near-duplicates that are folded into this hit
    also          jsonb               -- the nearest 20 of them, each at its first place
);

-- hybrid_search(query, k, tokens, symbol, filters, generation, exact, collapse, example): the hits, best first.
--
-- query, tokens and symbol are as in fused: a vector alone ranks by meaning, tokens alone by words, both by both.
--
--   SELECT rank, score, path, start_line, symbol, also
--     FROM pgembed.hybrid_search(NULL, 10, ARRAY['parse', 'date'], language => 'python');
--
-- Near-duplicates: chunks with a row in candidate_pairs at or above the mining setting near_duplicate. With `collapse` one
-- that is a copy of a hit of a higher rank is no hit of its own: it is listed in `also` of the first such hit. k hits
-- come back whenever there are k distinct ones. `example` is a chunk that stands above all hits: neither it nor, whatever
-- collapse says, a copy of it is a hit.
-- A chunk that stands in many places is one hit: its first place (of those that pass the filters) by source and path.
-- Fused scores depend on how deep the lists are looked into: alike for every k up to half the setting `candidates`, and
-- four times as deep where folding left fewer than k. The same question always has the same answer.
-- Reads what fused reads, candidate_pairs, mining_settings, code_chunks, chunk_locations, sources; writes nothing.
CREATE FUNCTION hybrid_search(
    query vector(2560), k integer DEFAULT 10, tokens text[] DEFAULT NULL, symbol text DEFAULT NULL,
    language text DEFAULT NULL, path text DEFAULT NULL, source text DEFAULT NULL, kind text DEFAULT NULL,
    generation bigint DEFAULT NULL, exact boolean DEFAULT false, collapse boolean DEFAULT true,
    example bigint DEFAULT NULL
)
RETURNS SETOF hybrid_hit
LANGUAGE plpgsql STABLE ROWS 10 SET search_path FROM CURRENT
AS $$
#variable_conflict use_variable
DECLARE
    least_copy double precision := mining_setting('near_duplicate');
    depth      bigint;
    found      fused_hit[];
    longest    bigint;     -- rows of the longest list: below the depth when there is nothing more
    kept       bigint[];
BEGIN
    IF k IS NULL OR k < 1 THEN
        RAISE EXCEPTION 'k is %: a search returns at least one row', coalesce(k::text, 'null')
              USING ERRCODE = 'invalid_parameter_value';
    END IF;
    depth := CASE WHEN tokens IS NOT NULL OR symbol IS NOT NULL
                  THEN greatest(search_setting('candidates')::bigint, 2 * k::bigint)
                  WHEN collapse OR example IS NOT NULL THEN 2 * k::bigint
                  ELSE k END;
    LOOP
        depth := least(depth, 2147483647);
        SELECT array_agg(f ORDER BY f.place),
               coalesce(greatest(max(f.vector_rank), max(f.lexical_rank), count(*) FILTER (WHERE f.symbol_match)), 0)
          INTO found, longest
          FROM fused(query, tokens, symbol, depth::integer, language, path, source, kind, generation, exact) f;
        kept := distinct_hits(ARRAY(SELECT f.chunk_id FROM unnest(found) f ORDER BY f.place), k, least_copy, collapse,
                              example);
        EXIT WHEN cardinality(kept) >= k OR longest < depth OR depth = 2147483647;
        depth := 4 * depth;
    END LOOP;

    RETURN QUERY
    SELECT hit.rank::integer, f.score, c.id, c.language, c.kind, coalesce(nullif(spot.symbol, ''), c.symbol),
           spot.source_name, spot.file, spot.start_line, spot.end_line, c.content,
           (SELECT count(*) FROM chunk_locations l WHERE l.chunk_id = c.id),
           f.vector_rank, f.vector_score, f.lexical_rank, f.lexical_score, f.symbol_match,
           coalesce(copy.copies, 0), coalesce(copy.also, '[]')
      FROM unnest(kept) WITH ORDINALITY AS hit (chunk_id, rank)
      JOIN unnest(found) f ON f.chunk_id = hit.chunk_id
      JOIN code_chunks c ON c.id = hit.chunk_id
      LEFT JOIN LATERAL first_place(c.id, path, source) spot ON true
      LEFT JOIN LATERAL copies_of(c.id, kept[:hit.rank - 1] || example, least_copy, language, path, source, kind) copy
             ON collapse
     ORDER BY 1;
END;
$$;

COMMENT ON FUNCTION
    hybrid_search(vector, integer, text[], text, text, text, text, text, bigint, boolean, boolean, bigint)
    IS 'Search by vector, words or both: hits with the parts of their score, place, content and copies, best first';
