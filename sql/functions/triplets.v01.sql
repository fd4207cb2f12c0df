-- Splits and triplets. Both depend on contents, paths and settings alone, never on ids: the same code ingested in another
-- order gives the same triplets, byte for byte. What has to be chosen is chosen by sha256, which is the same everywhere.

CREATE FUNCTION mining_setting(setting text) RETURNS double precision
LANGUAGE sql STABLE STRICT SET search_path FROM CURRENT
RETURN (SELECT s.value FROM mining_settings s WHERE s.name = setting);

-- The split of a file: a hash of seed, source and path, against the shares in mining_settings.
CREATE FUNCTION split_of(source text, path text) RETURNS text
LANGUAGE sql STABLE STRICT SET search_path FROM CURRENT
RETURN (SELECT CASE WHEN h.u < mining_setting('train_share') THEN 'train'
                    WHEN h.u < mining_setting('train_share') + mining_setting('validation_share') THEN 'validation'
                    ELSE 'test' END
          FROM (SELECT ('x0' || encode(substr(sha256(convert_to(
                            concat_ws('/', mining_setting('seed')::bigint, source, path), 'UTF8')), 1, 4), 'hex'))::bit(36)::bigint
                       / 4294967296.0 AS u) AS h);

-- What of a docstring is asked for: its first paragraph, cut after so many words.
CREATE FUNCTION docstring_anchor(docstring text, max_words integer) RETURNS text
LANGUAGE sql IMMUTABLE
RETURN substring(regexp_replace(ltrim(docstring, E' \t\r\n'), '\n[ \t\r]*\n.*$', '')
                 FROM '^(?:\S+\s+){0,' || max_words - 1 || '}\S+');

-- Put every chunk into a split by its file, so that no chunk and no near-duplicate of it is in two.
-- Reads code_chunks, chunk_locations, candidate_pairs; rewrites chunk_splits. Returns the chunks that are in no split.
-- A chunk that stands in files of several splits is in none. A cluster is a connected component of near-duplicates; one
-- whose members fall into several splits keeps those of the first (train, validation, test), and the others are in none.
CREATE FUNCTION assign_splits() RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT SET jit = off AS $$
DECLARE
    threshold  CONSTANT double precision := mining_setting('near_duplicate');
    min_tokens CONSTANT double precision := mining_setting('pairs_min_tokens');
    changed    bigint;
    left_out   bigint;
BEGIN
    CREATE TEMPORARY TABLE IF NOT EXISTS split_labels (chunk_id bigint PRIMARY KEY, label bigint NOT NULL) ON COMMIT DROP;
    CREATE TEMPORARY TABLE IF NOT EXISTS split_places (place bigint PRIMARY KEY, chunk_id bigint) ON COMMIT DROP;
    CREATE TEMPORARY TABLE IF NOT EXISTS split_edges (a bigint, b bigint) ON COMMIT DROP;
    CREATE TEMPORARY TABLE IF NOT EXISTS split_files (source_id bigint, path text, split text) ON COMMIT DROP;
    TRUNCATE pg_temp.split_labels, pg_temp.split_places, pg_temp.split_edges, pg_temp.split_files;
    INSERT INTO pg_temp.split_edges
    SELECT chunk_a, chunk_b FROM candidate_pairs WHERE jaccard >= threshold
    UNION ALL
    SELECT chunk_b, chunk_a FROM candidate_pairs WHERE jaccard >= threshold;
    -- a label is a place in the order of the contents' hashes; each round every chunk takes the least of its
    -- neighbours', and then that one's own (pointer jumping), until nothing changes: rounds grow as the logarithm of
    -- the longest chain
    INSERT INTO pg_temp.split_labels SELECT id, row_number() OVER (ORDER BY sha256) FROM code_chunks;
    INSERT INTO pg_temp.split_places SELECT label, chunk_id FROM pg_temp.split_labels;
    INSERT INTO pg_temp.split_files
    SELECT f.source_id, f.path, split_of(s.name, f.path) FROM source_files f JOIN sources s ON s.id = f.source_id;
    ANALYZE pg_temp.split_edges, pg_temp.split_labels, pg_temp.split_places, pg_temp.split_files;
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
    WITH placed AS MATERIALIZED (
        SELECT l.chunk_id, min(f.split) AS split, count(DISTINCT f.split) AS splits
          FROM chunk_locations l JOIN pg_temp.split_files f ON f.source_id = l.source_id AND f.path = l.path
         GROUP BY l.chunk_id
    ), clusters AS MATERIALIZED (
        SELECT b.label, CASE WHEN bool_or(p.split = 'train') THEN 'train'
                             WHEN bool_or(p.split = 'validation') THEN 'validation' ELSE 'test' END AS first
          FROM pg_temp.split_labels b JOIN placed p ON p.chunk_id = b.chunk_id
         WHERE p.splits = 1 GROUP BY b.label
    )
    SELECT b.chunk_id, f.sha256, CASE WHEN r.reason IS NULL THEN p.split END, r.reason
      FROM pg_temp.split_labels b
      JOIN code_chunks c ON c.id = b.chunk_id
      JOIN pg_temp.split_places o ON o.place = b.label
      JOIN code_chunks f ON f.id = o.chunk_id
      LEFT JOIN placed p ON p.chunk_id = b.chunk_id
      LEFT JOIN clusters k ON k.label = b.label
     CROSS JOIN LATERAL (
           SELECT CASE WHEN p.splits IS NULL THEN 'it stands in no file'
                       WHEN p.splits > 1 THEN 'it stands in files of several splits'
                       WHEN p.split <> k.first THEN 'a near-duplicate of it is in ' || k.first
                       WHEN c.token_count < min_tokens THEN 'too few tokens to be compared' END AS reason) AS r;
    SELECT count(*) INTO left_out FROM chunk_splits WHERE split IS NULL;
    ANALYZE chunk_splits;
    RETURN left_out;
END $$;

-- Rebuild the triplets from the pairs, the splits and the settings. Returns how many there are.
-- Reads code_chunks, chunk_locations, candidate_pairs, jaccard_sets, mining_settings, mining_exclusions; rewrites
-- chunk_splits and triplet_candidates.
--
-- docstring: the anchor is the docstring's first paragraph, the positive its body; the negative is the most similar body
--   that is neither the positive, nor a near-duplicate of it, nor described by the same words. Tried are the chunk's
--   look-alikes (candidate_pairs), its neighbours in the file, and those next to it in length: the rule says which it was.
-- code: anchor and positive are a candidate pair below near-duplicate; the negative is next in length and shares little.
-- All three are of one language and one split.
CREATE FUNCTION refresh_triplets() RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_mergejoin = off SET jit = off AS $$
DECLARE
    salt             CONSTANT bytea            := convert_to(mining_setting('seed')::bigint || '/', 'UTF8');
    near_duplicate   CONSTANT double precision := mining_setting('near_duplicate');
    min_tokens       CONSTANT integer          := mining_setting('min_tokens');
    max_tokens       CONSTANT integer          := mining_setting('max_tokens');
    min_lines        CONSTANT integer          := mining_setting('min_lines');
    max_lines        CONSTANT integer          := mining_setting('max_lines');
    min_words        CONSTANT integer          := mining_setting('min_docstring_words');
    max_words        CONSTANT integer          := mining_setting('max_anchor_words');
    ratio            CONSTANT double precision := mining_setting('length_ratio');
    per_docstring    CONSTANT integer          := mining_setting('docstring_negatives');
    same_file        CONSTANT integer          := mining_setting('same_file_candidates');
    like_length      CONSTANT integer          := mining_setting('like_length_candidates');
    positive_least   CONSTANT double precision := mining_setting('code_positive_min');
    per_code         CONSTANT integer          := mining_setting('code_positives');
    negative_most    CONSTANT double precision := mining_setting('code_negative_max');
    total            bigint;
BEGIN
    PERFORM assign_splits();
    CREATE TEMPORARY TABLE IF NOT EXISTS eligible (
        chunk_id bigint PRIMARY KEY, sha256 bytea, language text, split text, n integer, anchor text, described text,
        slot bigint) ON COMMIT DROP;
    CREATE TEMPORARY TABLE IF NOT EXISTS tried (
        anchor_id bigint, negative_id bigint, source integer, jaccard double precision) ON COMMIT DROP;
    TRUNCATE pg_temp.eligible, pg_temp.tried;

    INSERT INTO pg_temp.eligible
    SELECT c.id, c.sha256, c.language, p.split, s.n, a.anchor,
           trim(lower(regexp_replace(a.anchor, '\W+', ' ', 'g'))),
           row_number() OVER (PARTITION BY c.language, p.split ORDER BY s.n, sha256(salt || c.sha256))
      FROM code_chunks c
      JOIN jaccard_sets s ON s.chunk_id = c.id
      JOIN chunk_splits p ON p.chunk_id = c.id AND p.split IS NOT NULL
     CROSS JOIN LATERAL (SELECT docstring_anchor(c.docstring, max_words) AS text OFFSET 0) AS d
     CROSS JOIN LATERAL (
           SELECT CASE WHEN d.text ~ ('^(\S+\s+){' || min_words - 1 || '}\S')
                        AND NOT EXISTS (SELECT FROM mining_exclusions e
                                         WHERE e.enabled AND e.field = 'docstring' AND c.docstring ~ e.pattern)
                       THEN d.text END AS anchor OFFSET 0) AS a
     WHERE c.kind IN ('function', 'method')
       AND s.n BETWEEN min_tokens AND max_tokens
       AND c.line_count BETWEEN min_lines AND max_lines
       AND NOT EXISTS (SELECT FROM mining_exclusions e
                        WHERE e.enabled AND CASE e.field WHEN 'language' THEN c.language WHEN 'symbol' THEN c.symbol
                                                         WHEN 'body' THEN c.body END ~ e.pattern)
       AND EXISTS (SELECT FROM chunk_locations l
                    WHERE l.chunk_id = c.id
                      AND NOT EXISTS (SELECT FROM mining_exclusions e
                                       WHERE e.enabled AND e.field = 'path' AND l.path ~ e.pattern));
    CREATE INDEX ON pg_temp.eligible (language, split, slot);
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
    SELECT q.anchor_id, q.negative_id, q.source, k.common / (k.n - k.common)
      FROM (
        SELECT anchor_id, negative_id, min(source) AS source
          FROM (
            SELECT f.anchor_id, f.negative_id, 2 AS source
              FROM (SELECT a.chunk_id AS anchor_id, b.chunk_id AS negative_id,
                           row_number() OVER (PARTITION BY a.chunk_id, a.source_id, a.path
                                                  ORDER BY abs(a.start_line - b.start_line), b.start_line, y.sha256) AS near
                      FROM chunk_locations a
                      JOIN pg_temp.eligible x ON x.chunk_id = a.chunk_id
                      JOIN chunk_locations b ON b.source_id = a.source_id AND b.path = a.path AND b.chunk_id <> a.chunk_id
                      JOIN pg_temp.eligible y ON y.chunk_id = b.chunk_id AND y.split = x.split AND y.language = x.language
                                             AND y.n BETWEEN x.n / ratio AND x.n * ratio) AS f
             WHERE f.near <= same_file
            UNION ALL
            SELECT x.chunk_id, y.chunk_id, 3
              FROM pg_temp.eligible x
             CROSS JOIN generate_series(-like_length / 2, (like_length + 1) / 2) AS d(step)
              JOIN pg_temp.eligible y ON y.language = x.language AND y.split = x.split AND y.slot = x.slot + d.step
             WHERE d.step <> 0 AND y.n BETWEEN x.n / ratio AND x.n * ratio
          ) AS every
         GROUP BY anchor_id, negative_id
      ) AS q
     -- a fence: one look at each of the two sets by its key
     CROSS JOIN LATERAL (SELECT p.n + r.n AS n, -(p.members <#> r.members) AS common
                           FROM jaccard_sets p, jaccard_sets r
                          WHERE p.chunk_id = q.anchor_id AND r.chunk_id = q.negative_id OFFSET 0) AS k
     WHERE k.common / (k.n - k.common) < near_duplicate;
    ANALYZE pg_temp.tried;

    DELETE FROM triplet_candidates;
    INSERT INTO triplet_candidates (ordinal, kind, split, anchor_id, positive_id, negative_id,
                                    positive_jaccard, negative_jaccard, rule, anchor)
    WITH described AS (
        SELECT t.anchor_id, t.negative_id, t.jaccard, min(t.source) AS source,
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
         WHERE t.source = 1 AND t.jaccard >= positive_least
    ), unlike AS (
        SELECT t.anchor_id, t.negative_id, t.jaccard,
               row_number() OVER (PARTITION BY t.anchor_id ORDER BY t.jaccard DESC, y.sha256) AS hardness
          FROM pg_temp.tried t
          JOIN pg_temp.eligible x ON x.chunk_id = t.anchor_id
          JOIN pg_temp.eligible y ON y.chunk_id = t.negative_id
         WHERE t.jaccard <= negative_most AND (x.described IS NULL OR y.described IS DISTINCT FROM x.described)
         GROUP BY t.anchor_id, t.negative_id, t.jaccard, y.sha256
    ), every AS (
        SELECT 'docstring' AS kind, d.anchor_id, d.anchor_id AS positive_id, d.negative_id, 1::float8 AS positive_jaccard,
               d.jaccard AS negative_jaccard,
               'docstring / ' || (ARRAY['look-alike', 'same file', 'like length'])[d.source] AS rule
          FROM described d WHERE d.hardness <= per_docstring
        UNION ALL
        SELECT 'code', p.anchor_id, p.positive_id, u.negative_id, p.jaccard, u.jaccard, 'look-alike / shares little'
          FROM nearest p JOIN unlike u ON u.anchor_id = p.anchor_id AND u.hardness = p.nearness
         WHERE p.nearness <= per_code
    )
    SELECT row_number() OVER (ORDER BY sha256(salt || x.sha256 || y.sha256 || z.sha256 || convert_to(e.kind, 'UTF8'))),
           e.kind, x.split, e.anchor_id, e.positive_id, e.negative_id, e.positive_jaccard, e.negative_jaccard, e.rule,
           CASE WHEN e.kind = 'docstring' THEN x.anchor END
      FROM every e
      JOIN pg_temp.eligible x ON x.chunk_id = e.anchor_id
      JOIN pg_temp.eligible y ON y.chunk_id = e.positive_id
      JOIN pg_temp.eligible z ON z.chunk_id = e.negative_id;
    GET DIAGNOSTICS total = ROW_COUNT;
    ANALYZE triplet_candidates;
    RETURN total;
END $$;
