-- Why a triplet is there, and why a chunk gives none: for people, in words.
--
--   SELECT * FROM pgembed.explain_triplet(42);            -- the number is triplets.ordinal
--   SELECT * FROM pgembed.why_no_triplets(1234);          -- the number is code_chunks.id
--
-- Both read what the triplets were made from and write nothing; a few milliseconds each.

-- Where a chunk stands: source/path:first-last symbol of its first place, and how many others there are.
CREATE FUNCTION chunk_place(chunk_id bigint) RETURNS text
LANGUAGE sql STABLE STRICT SET search_path FROM CURRENT
RETURN (SELECT coalesce(min(q.place) FILTER (WHERE q.at = 1), 'it stands in no file')
               || CASE count(*) WHEN 0 THEN '' WHEN 1 THEN '' ELSE format(' (and %s more places)', count(*) - 1) END
          FROM (SELECT format('%s/%s:%s-%s %s', s.name, l.path, l.start_line, l.end_line,
                              coalesce(nullif(l.symbol, ''), c.symbol)) AS place,
                       row_number() OVER (ORDER BY s.name, l.path, l.start_line) AS at
                  FROM chunk_locations l
                  JOIN sources s ON s.id = l.source_id
                  JOIN code_chunks c ON c.id = l.chunk_id
                 WHERE l.chunk_id = chunk_place.chunk_id) AS q);

-- What two chunks share: '12 of 30 tokens, Jaccard 0.400; the rarest: frobnicate, quux'. Rare: in the fewest chunks, as of
-- the last ingest.
CREATE FUNCTION shared_tokens(a bigint, b bigint) RETURNS text
LANGUAGE sql STABLE STRICT SET search_path FROM CURRENT
RETURN (SELECT format('%s of %s tokens, Jaccard %s', n.common, n.either, round(n.common / nullif(n.either, 0)::numeric, 3))
               || CASE WHEN n.common > 0 THEN '; the rarest: ' || (
                      SELECT string_agg(r.token, ', ' ORDER BY r.document_frequency, r.token)
                        FROM (SELECT t.token, t.document_frequency FROM tokens t WHERE t.id = ANY (n.ids)
                               ORDER BY t.document_frequency, t.token LIMIT 5) AS r) ELSE '' END
          FROM (SELECT s.ids, cardinality(s.ids) AS common, x.token_count + y.token_count - cardinality(s.ids) AS either
                  FROM code_chunks x, code_chunks y,
                       LATERAL (SELECT ARRAY(SELECT unnest(x.token_ids) INTERSECT SELECT unnest(y.token_ids)) AS ids) AS s
                 WHERE x.id = a AND y.id = b) AS n);

-- What put a chunk into its split, or into none: its files' places against the shares, and its cluster of near-duplicates.
CREATE FUNCTION split_reason(chunk_id bigint) RETURNS text
LANGUAGE sql STABLE STRICT SET search_path FROM CURRENT
RETURN (SELECT coalesce(p.split, 'in no split, since ' || p.reason) || ': '
               || coalesce((SELECT string_agg(format('%s/%s is in %s (its hash is %s; train is below %s, validation below %s)',
                                                     f.name, f.path, split_of(f.name, f.path),
                                                     round(split_hash(f.name, f.path)::numeric, 3),
                                                     mining_setting('train_share'),
                                                     least(1, mining_setting('train_share')
                                                              + mining_setting('validation_share'))), '; ')
                              FROM (SELECT DISTINCT s.name, l.path
                                      FROM chunk_locations l JOIN sources s ON s.id = l.source_id
                                     WHERE l.chunk_id = p.chunk_id
                                     ORDER BY s.name, l.path LIMIT 3) AS f), 'it stands in no file')
               || CASE WHEN d.copies = 0 THEN '; no near-duplicates'
                       ELSE format('; %s near-duplicates, its cluster is %s', d.copies, left(encode(p.cluster, 'hex'), 12)) END
          FROM chunk_splits p
         CROSS JOIN LATERAL (
               SELECT count(*) AS copies
                 FROM (SELECT c.jaccard FROM candidate_pairs c WHERE c.chunk_a = p.chunk_id
                       UNION ALL SELECT c.jaccard FROM candidate_pairs c WHERE c.chunk_b = p.chunk_id) AS c
                WHERE c.jaccard >= mining_setting('near_duplicate')) AS d
         WHERE p.chunk_id = split_reason.chunk_id);

-- Why is this triplet here? Rows of (aspect, detail). The settings are those it was made with.
-- Raises no_data_found where there is no such triplet.
CREATE FUNCTION explain_triplet(ordinal bigint) RETURNS TABLE (aspect text, detail text)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    t     triplet_candidates;
    made  timestamptz;
    s     jsonb;
    blocked text;
BEGIN
    SELECT * INTO t FROM triplet_candidates c WHERE c.ordinal = explain_triplet.ordinal;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no triplet %', explain_triplet.ordinal
              USING ERRCODE = 'no_data_found', HINT = 'SELECT ordinal FROM pgembed.triplets';
    END IF;
    SELECT r.made_at, r.inputs -> 'settings' INTO made, s FROM triplet_state r;
    SELECT string_agg(b.reason, '; ') INTO blocked
      FROM (SELECT b.reason FROM chunk_blocks b JOIN code_chunks c ON c.sha256 = b.sha256
             WHERE c.id IN (t.anchor_id, t.positive_id, t.negative_id)
            UNION ALL
            SELECT b.reason FROM triplet_blocks b, code_chunks x, code_chunks y, code_chunks z
             WHERE b.anchor = x.sha256 AND b.positive = y.sha256 AND b.negative = z.sha256 AND b.kind = t.kind
               AND x.id = t.anchor_id AND y.id = t.positive_id AND z.id = t.negative_id) AS b;
    RETURN QUERY
    SELECT v.aspect, v.detail
      FROM (VALUES
        (1, 'rule', t.rule || ': ' || CASE t.rule
            WHEN 'docstring / look-alike' THEN
                'the docstring finds the body it was written for, not a body that shares many words with it'
            WHEN 'docstring / same file' THEN
                'the docstring finds the body it was written for, not a function that stands near it in the same file'
            WHEN 'docstring / like length' THEN
                'the docstring finds the body it was written for, not a body of about the same length'
            WHEN 'docstring / near in meaning' THEN
                'the docstring finds the body it was written for, not one that the active generation put near it'
            ELSE 'two functions that share many words are nearer to each other than to one of that length that shares few' END),
        (2, 'chosen as', CASE
            WHEN t.kind = 'docstring' AND t.negative_score IS NOT NULL THEN
                format('among the %s highest by cosine of all that were tried and are not false', s ->> 'docstring_negatives')
            WHEN t.kind = 'docstring' THEN
                format('among the %s highest by Jaccard of all that were tried', s ->> 'docstring_negatives')
            ELSE format('positive: among the %s nearest look-alikes; negative: the highest Jaccard that is small enough',
                        s ->> 'code_positives') END),
        (3, 'anchor', CASE WHEN t.kind = 'docstring' THEN 'the docstring of ' ELSE '' END || chunk_place(t.anchor_id)),
        (4, 'anchor text', CASE WHEN t.kind = 'docstring' THEN t.anchor END),
        (5, 'positive', CASE WHEN t.kind = 'docstring' THEN 'the same function without its docstring'
                             ELSE chunk_place(t.positive_id) END),
        (6, 'negative', chunk_place(t.negative_id)),
        (7, 'anchor and positive share', CASE WHEN t.kind = 'docstring'
            THEN 'they are one chunk: positive_jaccard is 1 and means nothing'
            ELSE shared_tokens(t.anchor_id, t.positive_id) END),
        (8, 'anchor and negative share', CASE WHEN t.kind = 'code' THEN shared_tokens(t.anchor_id, t.negative_id) END),
        (9, 'positive and negative share', shared_tokens(t.positive_id, t.negative_id)),
        (10, 'Jaccard', format('positive %s, negative %s', round(t.positive_jaccard::numeric, 3),
                               round(t.negative_jaccard::numeric, 3))),
        (11, 'length', (SELECT format('anchor %s, positive %s, negative %s tokens', a.token_count, p.token_count, n.token_count)
                          FROM code_chunks a, code_chunks p, code_chunks n
                         WHERE a.id = t.anchor_id AND p.id = t.positive_id AND n.id = t.negative_id)),
        (12, 'scores', CASE WHEN t.generation_id IS NULL THEN 'no vectors were asked'
            WHEN t.kind = 'docstring' THEN
                format('generation %s: the negative''s cosine to the described function is %s, '
                       'at most false_negative_ceiling = %s',
                       t.generation_id, round(t.negative_score::numeric, 4), s ->> 'false_negative_ceiling')
            ELSE format('generation %s: cosine of anchor and positive %s, of anchor and negative %s '
                        '(false_negative_margin = %s)',
                        t.generation_id, coalesce(round(t.positive_score::numeric, 4)::text, 'unknown'),
                        coalesce(round(t.negative_score::numeric, 4)::text, 'unknown'), s ->> 'false_negative_margin') END),
        (13, 'split of the anchor', split_reason(t.anchor_id)),
        (14, 'split of the positive', CASE WHEN t.positive_id <> t.anchor_id THEN split_reason(t.positive_id) END),
        (15, 'split of the negative', split_reason(t.negative_id)),
        (16, 'settings', (SELECT string_agg(e.key || ' = ' || e.value, ', ' ORDER BY e.key)
                            FROM jsonb_each_text(s) AS e
                           WHERE (t.kind = 'code' OR e.key !~ '^code_|margin$')
                             AND (t.kind = 'docstring' OR e.key !~ 'docstring|anchor|vector_|ceiling'))),
        (17, 'made', (SELECT format('%s, from pairs at Jaccard %s and above (run %s)',
                                    to_char(made, 'YYYY-MM-DD HH24:MI:SS TZ'), r.min_jaccard, r.id)
                        FROM pair_runs r, triplet_state u WHERE r.id = (u.inputs ->> 'pairs')::bigint)),
        (18, 'out of date', (SELECT 'changed since: ' || string_agg(i, ', ') || '; pgembed triplets --refresh'
                               FROM stale_inputs(contents => false) AS i)),
        (19, 'left out', 'a person has blocked it: ' || blocked),
        (20, 'to be rid of it', CASE WHEN blocked IS NULL THEN
            format('SELECT pgembed.block_triplet(%s, ''why''), or for a chunk in all triplets pgembed.block_chunk(%s, ''why'')',
                   t.ordinal, t.negative_id) END)
      ) AS v(place, aspect, detail)
     WHERE v.detail IS NOT NULL
     ORDER BY v.place;
END $$;
COMMENT ON FUNCTION explain_triplet(bigint) IS 'Why is this triplet here? In words, by its ordinal';

-- Why does this chunk give no triplet? A row for docstring and one for code: the triplets whose anchor it is, or the first
-- thing that stood against it. By the filters as they are now; a third row tells when the triplets are older than these.
-- Raises no_data_found where there is no such chunk.
CREATE FUNCTION why_no_triplets(chunk_id bigint) RETURNS TABLE (kind text, reason text)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
#variable_conflict use_column
DECLARE
    e        chunk_eligibility;
    given    text;
    others   bigint;
    nearest  record;
    -- a search for others of the kind ends here: more are enough
    many     CONSTANT integer := 20;
BEGIN
    SELECT * INTO e FROM chunk_eligibility x WHERE x.chunk_id = why_no_triplets.chunk_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no chunk %', why_no_triplets.chunk_id
              USING ERRCODE = 'no_data_found', HINT = 'SELECT id FROM pgembed.code_chunks';
    END IF;
    SELECT count(*) INTO others
      FROM (SELECT FROM code_chunks c JOIN chunk_splits p ON p.chunk_id = c.id
             WHERE c.language = e.language AND p.split = e.split AND c.id <> e.chunk_id AND c.kind IN ('function', 'method')
             LIMIT many) AS o;

    SELECT format('it gives %s: %s', count(*), string_agg(t.ordinal::text, ', ' ORDER BY t.ordinal)) INTO given
      FROM triplets t WHERE t.anchor_id = e.chunk_id AND t.kind = 'docstring' HAVING count(*) > 0;
    kind := 'docstring';
    reason := coalesce(given, e.anchor_refused, CASE
        WHEN mining_setting('docstring_negatives') = 0 THEN 'docstring_negatives is 0: no docstring gives any'
        WHEN others < many THEN format('no negative was found: its split (%s) holds only %s other functions in %s',
                                       e.split, others, e.language)
        ELSE 'no negative was found: whatever was tried (look-alikes, the same file, like length'
             || CASE WHEN mining_setting('use_vectors') = 1 THEN ', near in meaning' ELSE '' END
             || ') is a near-duplicate, too long or too short (length_ratio = ' || mining_setting('length_ratio')
             || '), described by the same words, blocked, or not eligible itself'
             || CASE WHEN mining_setting('use_vectors') = 1 THEN ', or scores above false_negative_ceiling' ELSE '' END END);
    RETURN NEXT;

    SELECT format('it gives %s: %s', count(*), string_agg(t.ordinal::text, ', ' ORDER BY t.ordinal)) INTO given
      FROM triplets t WHERE t.anchor_id = e.chunk_id AND t.kind = 'code' HAVING count(*) > 0;
    SELECT count(*) FILTER (WHERE c.jaccard >= mining_setting('near_duplicate')) AS copies,
           count(*) FILTER (WHERE c.jaccard < mining_setting('near_duplicate')) AS look_alikes,
           max(c.jaccard) FILTER (WHERE c.jaccard < mining_setting('near_duplicate')) AS jaccard,
           count(*) FILTER (WHERE c.jaccard < mining_setting('near_duplicate') AND o.refused IS NULL
                              AND o.language = e.language AND o.split = e.split) AS usable
      INTO nearest
      FROM (SELECT chunk_b AS other, jaccard FROM candidate_pairs WHERE chunk_a = e.chunk_id
            UNION ALL SELECT chunk_a, jaccard FROM candidate_pairs WHERE chunk_b = e.chunk_id) AS c
     CROSS JOIN LATERAL (SELECT * FROM chunk_eligibility o WHERE o.chunk_id = c.other) AS o;
    kind := 'code';
    reason := coalesce(given, e.refused, CASE
        WHEN mining_setting('code_positives') = 0 THEN 'code_positives is 0: no chunk gives any'
        WHEN nearest.look_alikes = 0 THEN format('no look-alike: no chunk pairs with it below near_duplicate = %s%s',
            mining_setting('near_duplicate'),
            CASE WHEN nearest.copies > 0 THEN format(' (%s near-duplicates are no positives)', nearest.copies) ELSE '' END)
        WHEN nearest.jaccard < mining_setting('code_positive_min') THEN
            format('no look-alike is near enough: the nearest has Jaccard %s, below code_positive_min = %s',
                   round(nearest.jaccard::numeric, 3), mining_setting('code_positive_min'))
        WHEN nearest.usable = 0 THEN
            'no look-alike can be a positive: all are in other splits or languages, or not eligible themselves'
        ELSE 'no negative was found: whatever was tried shares too much (code_negative_max = '
             || mining_setting('code_negative_max') || '), is too long or too short (length_ratio = ' || mining_setting('length_ratio')
             || '), is described by the same words, blocked, or not eligible itself'
             || CASE WHEN mining_setting('use_vectors') = 1 THEN ', or scores too near to the positive' ELSE '' END END);
    RETURN NEXT;

    SELECT 'the triplets are out of date; changed since: ' || string_agg(i, ', ')
           || '. Run pgembed pairs, or pgembed triplets --refresh'
      INTO reason FROM stale_inputs(contents => false) AS i;
    IF reason IS NOT NULL THEN
        kind := 'both';
        RETURN NEXT;
    END IF;
END $$;
COMMENT ON FUNCTION why_no_triplets(bigint) IS 'Why does this chunk give no triplet? In words, by the chunk''s id';
