-- Splits and triplets. Both depend on contents, paths and settings alone, never on ids: the same code ingested in another
-- order gives the same triplets, byte for byte.

CREATE FUNCTION mining_setting(setting text) RETURNS double precision
LANGUAGE sql STABLE STRICT SET search_path FROM CURRENT
RETURN (SELECT s.value FROM mining_settings s WHERE s.name = setting);

-- Put every chunk into a split by its file, so that no chunk and no near-duplicate of it is in two.
-- Reads code_chunks, chunk_locations, candidate_pairs; rewrites chunk_splits. Returns the chunks that are in no split.
-- A cluster is a connected component of near-duplicates; one whose files fall into several splits is left out of all.
CREATE FUNCTION assign_splits() RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT SET jit = off AS $$
DECLARE
    salt       CONSTANT bigint := mining_setting('seed')::bigint;
    train      CONSTANT double precision := mining_setting('train_share');
    validation CONSTANT double precision := mining_setting('validation_share');
    threshold  CONSTANT double precision := mining_setting('near_duplicate');
    changed    bigint;
    left_out   bigint;
BEGIN
    CREATE TEMPORARY TABLE IF NOT EXISTS split_labels (chunk_id bigint PRIMARY KEY, label bigint NOT NULL) ON COMMIT DROP;
    CREATE TEMPORARY TABLE IF NOT EXISTS split_edges (a bigint, b bigint) ON COMMIT DROP;
    TRUNCATE pg_temp.split_labels, pg_temp.split_edges;
    INSERT INTO pg_temp.split_edges
    SELECT chunk_a, chunk_b FROM candidate_pairs WHERE jaccard >= threshold
    UNION ALL
    SELECT chunk_b, chunk_a FROM candidate_pairs WHERE jaccard >= threshold;
    -- a label is a place in the order of the contents' hashes; each round every chunk takes the least of its
    -- neighbours', and then that one's own (pointer jumping), until nothing changes
    INSERT INTO pg_temp.split_labels SELECT id, row_number() OVER (ORDER BY sha256) FROM code_chunks;
    CREATE TEMPORARY TABLE IF NOT EXISTS split_places (place bigint PRIMARY KEY, chunk_id bigint) ON COMMIT DROP;
    TRUNCATE pg_temp.split_places;
    INSERT INTO pg_temp.split_places SELECT label, chunk_id FROM pg_temp.split_labels;
    ANALYZE pg_temp.split_edges, pg_temp.split_labels, pg_temp.split_places;
    LOOP
        UPDATE pg_temp.split_labels own SET label = found.least
          FROM (SELECT e.a, min(n.label) AS least
                  FROM pg_temp.split_edges e JOIN pg_temp.split_labels n ON n.chunk_id = e.b GROUP BY e.a) AS found
         WHERE own.chunk_id = found.a AND found.least < own.label;
        GET DIAGNOSTICS changed = ROW_COUNT;
        EXIT WHEN changed = 0;
        UPDATE pg_temp.split_labels own SET label = root.label
          FROM pg_temp.split_places p JOIN pg_temp.split_labels root ON root.chunk_id = p.chunk_id
         WHERE p.place = own.label AND root.label < own.label;
    END LOOP;
    DELETE FROM chunk_splits;
    INSERT INTO chunk_splits (chunk_id, cluster, split, reason)
    WITH placed AS (
        SELECT l.chunk_id,
               CASE WHEN u < train THEN 'train' WHEN u < train + validation THEN 'validation' ELSE 'test' END AS split
          FROM chunk_locations l
          JOIN sources s ON s.id = l.source_id
         CROSS JOIN LATERAL (
               SELECT (hashtextextended(s.name || '/' || l.path, salt) & 1048575) / 1048576.0 AS u) AS h
    ), clusters AS (
        SELECT b.label, min(p.split) AS split, count(DISTINCT p.split) AS splits
          FROM pg_temp.split_labels b JOIN placed p USING (chunk_id) GROUP BY b.label
    )
    SELECT b.chunk_id, first.sha256, CASE WHEN k.splits = 1 THEN k.split END,
           CASE WHEN k.splits > 1 THEN 'its copies stand in files of several splits' END
      FROM pg_temp.split_labels b
      JOIN clusters k USING (label)
      JOIN pg_temp.split_places p ON p.place = b.label
      JOIN code_chunks first ON first.id = p.chunk_id;
    SELECT count(*) INTO left_out FROM chunk_splits WHERE split IS NULL;
    ANALYZE chunk_splits;
    RETURN left_out;
END $$;

-- Rebuild the triplets from the pairs, the splits and the settings. Returns how many there are.
-- Reads code_chunks, chunk_locations, candidate_pairs, jaccard_sets, mining_settings; rewrites chunk_splits and
-- triplet_candidates.
--
-- docstring: anchor is the docstring, positive its body, negative the most similar body that is neither the positive, nor
--   a near-duplicate, nor described by the same docstring. Tried are the chunk's look-alikes (candidate_pairs), the
--   others in its file, and some of like length; the rule says which of these it was.
-- code: anchor and positive are a candidate pair below near-duplicate; the negative is of like length and shares little.
CREATE FUNCTION refresh_triplets() RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_mergejoin = off SET jit = off AS $$
DECLARE
    salt           CONSTANT bigint := mining_setting('seed')::bigint;
    near_duplicate CONSTANT double precision := mining_setting('near_duplicate');
    ratio          CONSTANT double precision := mining_setting('length_ratio');
    tries          CONSTANT integer := mining_setting('random_candidates')::integer;
    total          bigint;
BEGIN
    PERFORM assign_splits();
    CREATE TEMPORARY TABLE IF NOT EXISTS eligible (
        chunk_id bigint PRIMARY KEY, sha256 bytea, language text, split text, n integer, described text,
        bucket integer, slot bigint, slots bigint) ON COMMIT DROP;
    CREATE TEMPORARY TABLE IF NOT EXISTS tried (
        anchor_id bigint, negative_id bigint, source integer, jaccard double precision) ON COMMIT DROP;
    TRUNCATE pg_temp.eligible, pg_temp.tried;

    INSERT INTO pg_temp.eligible
    SELECT c.id, c.sha256, c.language, p.split, s.n,
           CASE WHEN w.words BETWEEN mining_setting('min_docstring_words') AND mining_setting('max_docstring_words')
                THEN lower(regexp_replace(c.docstring, '\s+', ' ', 'g')) END,
           b.bucket,
           row_number() OVER ring - 1, count(*) OVER (PARTITION BY c.language, p.split, b.bucket)
      FROM code_chunks c
      JOIN jaccard_sets s ON s.chunk_id = c.id
      JOIN chunk_splits p ON p.chunk_id = c.id AND p.split IS NOT NULL
     CROSS JOIN LATERAL (SELECT floor(ln(s.n::float8) / ln(1.5))::integer AS bucket) AS b
     CROSS JOIN LATERAL (
           SELECT cardinality(regexp_split_to_array(trim(coalesce(c.docstring, '')), '\s+')) AS words) AS w
     WHERE c.kind IN ('function', 'method')
       AND s.n BETWEEN mining_setting('min_tokens') AND mining_setting('max_tokens')
       AND c.line_count BETWEEN mining_setting('min_lines') AND mining_setting('max_lines')
       AND (mining_setting('exclude_tests') = 0 OR EXISTS (
            SELECT FROM chunk_locations l
             WHERE l.chunk_id = c.id
               AND l.path !~ '(^|/)(tests?|testing|__tests__|spec)/|(^|/)(test_[^/]*|conftest\.py)$|[._](test|spec)\.[a-z]+$'))
    WINDOW ring AS (PARTITION BY c.language, p.split, b.bucket
                        ORDER BY hashtextextended(encode(c.sha256, 'hex'), salt), c.sha256);
    ANALYZE pg_temp.eligible;

    -- what is tried as a negative: 1 look-alikes, 2 the same file, 3 like length
    INSERT INTO pg_temp.tried
    SELECT d.a, d.b, 1, d.jaccard
      FROM (SELECT chunk_a AS a, chunk_b AS b, jaccard FROM candidate_pairs
            UNION ALL SELECT chunk_b, chunk_a, jaccard FROM candidate_pairs) AS d
      JOIN pg_temp.eligible x ON x.chunk_id = d.a
      JOIN pg_temp.eligible y ON y.chunk_id = d.b AND y.split = x.split AND y.language = x.language
     WHERE d.jaccard < near_duplicate;
    INSERT INTO pg_temp.tried
    SELECT q.anchor_id, q.negative_id, q.source, k.common / (p.n + r.n - k.common)
      FROM (
        SELECT DISTINCT ON (anchor_id, negative_id) anchor_id, negative_id, source
          FROM (
            -- at most 40 of a file, those that begin nearest to the anchor
            SELECT anchor_id, negative_id, 2 AS source
              FROM (SELECT a.chunk_id AS anchor_id, b.chunk_id AS negative_id,
                           row_number() OVER (PARTITION BY a.chunk_id, a.source_id, a.path
                                                  ORDER BY abs(a.start_line - b.start_line), b.start_line) AS near
                      FROM chunk_locations a
                      JOIN pg_temp.eligible x ON x.chunk_id = a.chunk_id
                      JOIN chunk_locations b ON b.source_id = a.source_id AND b.path = a.path AND b.chunk_id <> a.chunk_id
                      JOIN pg_temp.eligible y ON y.chunk_id = b.chunk_id) AS f
             WHERE near <= 40
            UNION ALL
            SELECT x.chunk_id, y.chunk_id, 3
              FROM (SELECT e.*, ((hashtextextended(encode(e.sha256, 'hex'), salt # (7919 * d)::bigint)
                                  & 9223372036854775807) % e.slots) AS wanted
                      FROM pg_temp.eligible e CROSS JOIN generate_series(1, tries) AS d OFFSET 0) AS x
              JOIN pg_temp.eligible y ON y.language = x.language AND y.split = x.split AND y.bucket = x.bucket
                                     AND y.slot = x.wanted
             WHERE y.chunk_id <> x.chunk_id
          ) AS every
         ORDER BY anchor_id, negative_id, source
      ) AS q
      JOIN pg_temp.eligible x ON x.chunk_id = q.anchor_id
      JOIN pg_temp.eligible y ON y.chunk_id = q.negative_id AND y.split = x.split AND y.language = x.language
      JOIN jaccard_sets p ON p.chunk_id = q.anchor_id
      JOIN jaccard_sets r ON r.chunk_id = q.negative_id
     CROSS JOIN LATERAL (SELECT -(p.members <#> r.members) AS common) AS k
     WHERE k.common / (p.n + r.n - k.common) < near_duplicate;
    ANALYZE pg_temp.tried;

    DELETE FROM triplet_candidates;
    INSERT INTO triplet_candidates (ordinal, kind, split, anchor_id, positive_id, negative_id,
                                    positive_jaccard, negative_jaccard, rule)
    WITH described AS (
        SELECT t.anchor_id, t.anchor_id AS positive_id, t.negative_id, 1::float8 AS positive_jaccard, t.jaccard,
               (ARRAY['look-alike', 'same file', 'like length'])[min(t.source)] AS rule,
               row_number() OVER (PARTITION BY t.anchor_id ORDER BY t.jaccard DESC, y.sha256) AS hardness
          FROM pg_temp.tried t
          JOIN pg_temp.eligible x ON x.chunk_id = t.anchor_id
          JOIN pg_temp.eligible y ON y.chunk_id = t.negative_id
         WHERE x.described IS NOT NULL AND y.described IS DISTINCT FROM x.described
           AND y.n BETWEEN x.n / ratio AND x.n * ratio
         GROUP BY t.anchor_id, t.negative_id, t.jaccard, y.sha256
    ), nearest AS (
        SELECT t.anchor_id, t.negative_id AS positive_id, t.jaccard,
               row_number() OVER (PARTITION BY t.anchor_id ORDER BY t.jaccard DESC, y.sha256) AS nearness
          FROM pg_temp.tried t JOIN pg_temp.eligible y ON y.chunk_id = t.negative_id
         WHERE t.source = 1 AND t.jaccard >= mining_setting('code_positive_min')
    ), unlike AS (
        SELECT t.anchor_id, t.negative_id, t.jaccard,
               row_number() OVER (PARTITION BY t.anchor_id ORDER BY t.jaccard DESC, y.sha256) AS hardness
          FROM pg_temp.tried t
          JOIN pg_temp.eligible x ON x.chunk_id = t.anchor_id
          JOIN pg_temp.eligible y ON y.chunk_id = t.negative_id
         WHERE t.jaccard <= mining_setting('code_negative_max') AND y.n BETWEEN x.n / ratio AND x.n * ratio
    ), every AS (
        SELECT 'docstring' AS kind, d.anchor_id, d.positive_id, d.negative_id, d.positive_jaccard,
               d.jaccard AS negative_jaccard, 'docstring / ' || d.rule AS rule
          FROM described d WHERE d.hardness <= mining_setting('docstring_negatives')
        UNION ALL
        SELECT 'code', p.anchor_id, p.positive_id, u.negative_id, p.jaccard, u.jaccard, 'look-alike / shares little'
          FROM nearest p JOIN unlike u ON u.anchor_id = p.anchor_id AND u.hardness = p.nearness
         WHERE p.nearness <= mining_setting('code_positives')
    )
    SELECT row_number() OVER (ORDER BY hashtextextended(e.kind || encode(x.sha256 || y.sha256 || z.sha256, 'hex'), salt),
                                       x.sha256, y.sha256, z.sha256, e.kind),
           e.kind, x.split, e.anchor_id, e.positive_id, e.negative_id, e.positive_jaccard, e.negative_jaccard, e.rule
      FROM every e
      JOIN pg_temp.eligible x ON x.chunk_id = e.anchor_id
      JOIN pg_temp.eligible y ON y.chunk_id = e.positive_id
      JOIN pg_temp.eligible z ON z.chunk_id = e.negative_id;
    GET DIAGNOSTICS total = ROW_COUNT;
    ANALYZE triplet_candidates;
    RETURN total;
END $$;
