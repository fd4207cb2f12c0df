-- Search by words: BM25 over the parts of identifiers and the words of docstrings, with no other extension.
--
-- A query comes as tokens, split as the chunks' were (pgembed/tokens.py), because the splitting knows all alphabets and
-- a server's regular expressions know those of its locale. What a document holds is a set: a token counts once. Counting
-- each occurrence ranked docstrings worse (nDCG@10 .564 against .576) and web queries better (.492 against .457).
--
--   score = sum of idf over the shared tokens · (k1 + 1) / (1 + k1 · (1 - b + b · length / average length))
--   idf   = ln(1 + (documents - frequency + 0.5) / (frequency + 0.5))
--
-- Source: Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", with a term frequency
-- of 1; the idf that cannot be negative is Lucene's.

CREATE FUNCTION search_setting(setting text) RETURNS double precision
LANGUAGE sql STABLE STRICT SET search_path FROM CURRENT
RETURN (SELECT s.value FROM search_settings s WHERE s.name = setting);

COMMENT ON FUNCTION search_setting(text) IS 'A row of search_settings';

-- refresh_lexical_statistics(): count tokens and documents anew. Exact and set-wise: 1 s at 100,000 documents.
CREATE FUNCTION refresh_lexical_statistics() RETURNS void
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
BEGIN ATOMIC
    WITH counted AS (
        SELECT held.id, count(*)::integer AS documents
          FROM lexical_documents d CROSS JOIN unnest(d.token_ids) AS held (id)
         GROUP BY held.id
    )
    UPDATE tokens t SET lexical_frequency = coalesce(c.documents, 0)
      FROM tokens own LEFT JOIN counted c ON c.id = own.id
     WHERE t.id = own.id AND t.lexical_frequency <> coalesce(c.documents, 0);
    INSERT INTO lexical_statistics AS s (documents, average_length)
    SELECT count(*), coalesce(avg(length), 0) FROM lexical_documents
    ON CONFLICT (only_row) DO UPDATE SET documents = excluded.documents, average_length = excluded.average_length
     WHERE (s.documents, s.average_length) IS DISTINCT FROM (excluded.documents, excluded.average_length);
END;

COMMENT ON FUNCTION refresh_lexical_statistics() IS 'Count the documents of the search by words, and of each token, anew';

-- lexical_terms(tokens): those of the query's tokens that some chunk holds, the rarest first, with their idf.
-- At most 100: the rarest of a longer query say what it is about.
CREATE FUNCTION lexical_terms(tokens text[])
RETURNS TABLE (token text, token_id integer, frequency integer, idf double precision)
LANGUAGE sql STABLE ROWS 10 SET search_path FROM CURRENT
BEGIN ATOMIC
    SELECT t.token, t.id, t.lexical_frequency,
           ln(1 + (greatest(s.documents, t.lexical_frequency) - t.lexical_frequency + 0.5) / (t.lexical_frequency + 0.5))
      FROM tokens t CROSS JOIN lexical_statistics s
     WHERE t.token = ANY (lexical_terms.tokens)
     ORDER BY t.lexical_frequency, t.id
     LIMIT 100;
END;

COMMENT ON FUNCTION lexical_terms(text[]) IS 'Tokens of a query that occur, the rarest first: frequency and idf';

-- filter_clause(language, path, source, kind): the condition on code_chunks c that these filters are; '' for none.
-- $3 language, $4 path patterns, $5 source id, $6 kind, as in search_strategy. Fixed texts only.
CREATE FUNCTION filter_clause(language text, path text, source text, kind text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path FROM CURRENT
RETURN CASE WHEN language IS NOT NULL THEN ' AND c.language = $3' ELSE '' END
    || CASE WHEN kind IS NOT NULL THEN ' AND c.kind = $6' ELSE '' END
    || CASE WHEN path IS NULL AND source IS NULL THEN ''
            ELSE ' AND EXISTS (SELECT FROM chunk_locations l WHERE l.chunk_id = c.id'
              || CASE WHEN path   IS NOT NULL THEN ' AND l.path LIKE ANY ($4)' ELSE '' END
              || CASE WHEN source IS NOT NULL THEN ' AND l.source_id = $5'     ELSE '' END || ')' END;

COMMENT ON FUNCTION filter_clause(text, text, text, text) IS 'The condition that the filters of a search are';

-- lexical_strategy(tokens, k, filters, widest): how a search by words is answered. One row:
--
--   terms, idfs  the query's tokens that occur, by id, the rarest first, and what each is worth
--   needed       a document must hold one of the first `needed` of these; the others only add to its score
--   is_exact     whether no other document could be among the best, as far as frequencies alone tell
--   statement    $1 terms, $2 k, $3 to $6 the filters, $7 idfs, $8 needed terms, $9 the average length
--   settings     what must hold while it is planned and run
--
-- The choice. A frequent token tells little and stands in half of all documents: to score these would be to read them.
-- So the rarest tokens choose, as many as together stand in no more documents than the setting lexical_candidates (one
-- at least), and all score. Where even the rarest stands in more, the shortest documents are scored: those that its
-- weight favours. `widest` lets all tokens choose, for a filter that left fewer than k.
--
-- Source: the split in tokens that choose and tokens that add is MaxScore (Turtle and Flood 1995), with a fixed budget.
-- At 100,000 functions, asked by 100 docstrings, 97% of the ten best of a full scan were found (benchmarks/hybrid.py).
CREATE FUNCTION lexical_strategy(
    tokens text[], k integer, language text, path text, source text, kind text, widest boolean,
    OUT terms integer[], OUT idfs double precision[], OUT needed integer, OUT is_exact boolean,
    OUT statement text, OUT settings jsonb
)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
AS $$
#variable_conflict use_column
DECLARE
    filters     text := filter_clause(language, path, source, kind);
    frequencies bigint[];
    sought      integer := least(greatest(search_setting('lexical_candidates'), k::double precision), 2147483647);
    found       bigint;
BEGIN
    IF k IS NULL OR k < 1 THEN
        RAISE EXCEPTION 'k is %: a search returns at least one row', coalesce(k::text, 'null')
              USING ERRCODE = 'invalid_parameter_value';
    END IF;
    SELECT coalesce(array_agg(t.token_id ORDER BY t.frequency, t.token_id), '{}'),
           coalesce(array_agg(t.idf ORDER BY t.frequency, t.token_id), '{}'),
           coalesce(array_agg(t.frequency ORDER BY t.frequency, t.token_id), '{}')
      INTO terms, idfs, frequencies
      FROM lexical_terms(lexical_strategy.tokens) t;
    found := coalesce(frequencies[1], 0);
    needed := least(1, cardinality(terms));
    WHILE needed < cardinality(terms) AND (widest OR found + frequencies[needed + 1] <= sought) LOOP
        needed := needed + 1;
        found := found + frequencies[needed];
    END LOOP;
    is_exact := needed = cardinality(terms) AND found <= sought;

    settings := '{"jit": "off", "max_parallel_workers_per_gather": "0"}';
    IF filters = '' THEN
        -- the array's statistics are off, and the index is always the better way in
        settings := settings || '{"enable_seqscan": "off"}';
        IF found > sought AND found::double precision ^ 2 > 2.0 * sought * (SELECT s.documents FROM lexical_statistics s) THEN
            -- A token in so many documents is met soon on a walk along the lengths; the planner does not know that.
            -- For 'self', in 54,306 of 100,000, it reads 7,400 documents instead of these.
            settings := settings || '{"enable_bitmapscan": "off"}';
        END IF;
    END IF;
    -- Only fixed texts enter the statement, and a number of our own; all that a user gives is a parameter.
    -- The tokens of a document are unfolded in its SELECT list: a function scan for each document took twice as long.
    -- Summed in one order, equal documents have equal scores, to the last bit.
    statement := format(
        'SELECT h.chunk_id, sum($7[array_position($1, h.id)] ORDER BY h.id) * (%1$L::float8 + 1)'
        '                   / (1 + %1$L::float8 * (1 - %2$L::float8 + %2$L::float8 * h.length / greatest($9, 1))) AS score'
        '  FROM (SELECT d.chunk_id, d.length, unnest(d.token_ids) AS id'
        '          FROM (SELECT d.chunk_id, d.token_ids, d.length FROM lexical_documents d%3$s'
        '                 WHERE d.token_ids && $8%4$s%5$s) d) h'
        ' WHERE h.id = ANY ($1)'
        ' GROUP BY h.chunk_id, h.length'
        ' ORDER BY score DESC, h.chunk_id LIMIT $2',
        search_setting('bm25_k1'), search_setting('bm25_b'),
        CASE WHEN filters = '' THEN '' ELSE ' JOIN code_chunks c ON c.id = d.chunk_id' END, filters,
        CASE WHEN found <= sought OR widest AND filters <> '' THEN ''
             ELSE format(' ORDER BY d.length, d.chunk_id LIMIT %s', sought) END);
END;
$$;

COMMENT ON FUNCTION lexical_strategy(text[], integer, text, text, text, text, boolean)
    IS 'How a search by words will be answered: which tokens choose, which only add, the statement and its settings';

-- lexical_matches(tokens, k, filters): the k chunks that say most of a query's words, best first, and their BM25.
--
-- k rows come back whenever k chunks hold one of the tokens and pass the filters; equal scores in the order of ids.
-- Needs no generation and no encoder. Reads tokens, lexical_documents, lexical_statistics, code_chunks, chunk_locations,
-- search_settings; writes nothing. At 100,000 functions 24 ms in the median, 64 at most, on two busy cores
-- (benchmarks/hybrid.py).
CREATE FUNCTION lexical_matches(
    tokens text[], k integer DEFAULT 10, language text DEFAULT NULL, path text DEFAULT NULL,
    source text DEFAULT NULL, kind text DEFAULT NULL
)
RETURNS TABLE (chunk_id bigint, score double precision)
LANGUAGE plpgsql STABLE ROWS 10 SET search_path FROM CURRENT
AS $$
#variable_conflict use_variable
DECLARE
    chosen record;
    before jsonb;
    ids    bigint[];
    scores double precision[];
    mean   double precision := (SELECT s.average_length FROM lexical_statistics s);
BEGIN
    FOR widest IN 0..1 LOOP
        chosen := lexical_strategy(tokens, k, language, path, source, kind, widest = 1);
        EXIT WHEN cardinality(chosen.terms) = 0;
        before := swap_settings(chosen.settings);
        EXECUTE format('SELECT array_agg(chunk_id ORDER BY score DESC, chunk_id),'
                       '       array_agg(score ORDER BY score DESC, chunk_id) FROM (%s) found', chosen.statement)
           INTO ids, scores
          USING chosen.terms, k, language, path_patterns(path), source_id(source), kind, chosen.idfs,
                chosen.terms[:chosen.needed], mean;
        PERFORM swap_settings(before);
        EXIT WHEN cardinality(ids) >= k OR chosen.is_exact;
    END LOOP;
    RETURN QUERY SELECT * FROM unnest(ids, scores);
END;
$$;

COMMENT ON FUNCTION lexical_matches(text[], integer, text, text, text, text)
    IS 'The k chunks that match a query''s tokens best, by BM25';

-- lexical_plan(tokens, k, filters): how this search by words would be answered, as text. Runs nothing.
CREATE FUNCTION lexical_plan(
    tokens text[], k integer DEFAULT 10, language text DEFAULT NULL, path text DEFAULT NULL,
    source text DEFAULT NULL, kind text DEFAULT NULL
)
RETURNS SETOF text
LANGUAGE plpgsql VOLATILE  -- only because EXPLAIN asks for it; nothing is written
SET search_path FROM CURRENT
AS $$
DECLARE
    chosen record := lexical_strategy(tokens, k, language, path, source, kind, false);
    before jsonb;
    line   text;
BEGIN
    RETURN NEXT format('words: %s of %s tokens choose the documents, all of them score%s', chosen.needed,
                       cardinality(chosen.terms), CASE WHEN chosen.is_exact THEN ' (exact)' ELSE '' END);
    before := swap_settings(chosen.settings);
    FOR line IN EXECUTE 'EXPLAIN ' || chosen.statement
                  USING chosen.terms, k, language, path_patterns(path), source_id(source), kind, chosen.idfs,
                        chosen.terms[:chosen.needed], (SELECT s.average_length FROM lexical_statistics s)
    LOOP
        RETURN NEXT regexp_replace(line, '''\{[-+0-9.,e]{40,}\}''', '''{…}''', 'g');
    END LOOP;
    PERFORM swap_settings(before);
END;
$$;

COMMENT ON FUNCTION lexical_plan(text[], integer, text, text, text, text)
    IS 'The strategy and the plan of a search by words, without running it';
