-- Splits and triplets. Both depend on contents, paths and settings alone, never on ids: the same code ingested in another
-- order gives the same triplets, byte for byte. What has to be chosen is chosen by sha256, which is the same everywhere.

CREATE FUNCTION mining_setting(setting text) RETURNS double precision
LANGUAGE sql STABLE STRICT SET search_path FROM CURRENT
RETURN (SELECT s.value FROM mining_settings s WHERE s.name = setting);

-- A setting is refused when it is written: a name that nothing reads, a value that cannot be meant. What a new version
-- adds to the settings, its migration inserts with this trigger off.
CREATE FUNCTION check_mining_setting() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP IN ('DELETE', 'TRUNCATE') THEN
        RAISE EXCEPTION 'a mining setting cannot be deleted'
              USING ERRCODE = 'invalid_parameter_value',
                    HINT = 'Give it another value: UPDATE pgembed.mining_settings SET value = …';
    END IF;
    IF NOT EXISTS (SELECT FROM mining_settings s WHERE s.name = NEW.name) THEN
        RAISE EXCEPTION 'there is no mining setting %', NEW.name
              USING ERRCODE = 'invalid_parameter_value',
                    HINT = 'There are: ' || (SELECT string_agg(s.name, ', ' ORDER BY s.name) FROM mining_settings s);
    END IF;
    IF TG_OP = 'UPDATE' AND NEW.name <> OLD.name THEN
        RAISE EXCEPTION 'the mining setting % cannot be renamed', OLD.name USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF (NEW.value BETWEEN NEW.least AND NEW.most AND (NOT NEW.whole OR NEW.value = trunc(NEW.value))) IS NOT TRUE THEN
        RAISE EXCEPTION 'the mining setting % cannot be %: it is % from % to %', NEW.name, coalesce(NEW.value::text, 'null'),
                        CASE WHEN NEW.whole THEN 'a whole number' ELSE 'a number' END, NEW.least, NEW.most
              USING ERRCODE = 'invalid_parameter_value', HINT = NEW.description;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER mining_settings_check BEFORE INSERT OR UPDATE OR DELETE ON mining_settings
    FOR EACH ROW EXECUTE FUNCTION check_mining_setting();
CREATE TRIGGER mining_settings_check_truncate BEFORE TRUNCATE ON mining_settings
    FOR EACH STATEMENT EXECUTE FUNCTION check_mining_setting();

-- What no single setting shows: settings that contradict each other, and pairs that do not reach as far as the settings.
-- Raises invalid_parameter_value, or object_not_in_prerequisite_state where `pgembed pairs` has to be run first.
CREATE FUNCTION check_mining_settings() RETURNS void
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT AS $$
DECLARE
    wrong text;
    run   pair_runs;
BEGIN
    SELECT string_agg(format('%s (%s) must %s %s (%s)', a.name, a.value, r.must, b.name, b.value), '; ' ORDER BY a.name)
      INTO wrong
      FROM (VALUES ('min_tokens', 'not be above', 'max_tokens'), ('min_lines', 'not be above', 'max_lines'),
                   ('min_docstring_words', 'not be above', 'max_anchor_words'),
                   ('code_positive_min', 'be below', 'near_duplicate'),
                   ('code_negative_max', 'be below', 'code_positive_min')) AS r(low, must, high)
      JOIN mining_settings a ON a.name = r.low
      JOIN mining_settings b ON b.name = r.high
     WHERE a.value > b.value OR a.value = b.value AND r.must = 'be below';
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'the mining settings contradict each other: %', wrong
              USING ERRCODE = 'invalid_parameter_value',
                    HINT = 'UPDATE pgembed.mining_settings SET value = … WHERE name = …';
    END IF;
    SELECT * INTO run FROM pair_runs r ORDER BY r.id DESC LIMIT 1;
    IF run.state <> 'finished' THEN
        RAISE EXCEPTION 'the last run of pairs was interrupted: copies that it has not found could stand in two splits'
              USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Finish it: pgembed pairs';
    ELSIF run.min_jaccard > mining_setting('near_duplicate') + 1e-9 THEN
        RAISE EXCEPTION 'near_duplicate (%) is below the Jaccard from which pairs were found (%): copies could be in two splits',
                        mining_setting('near_duplicate'), run.min_jaccard
              USING ERRCODE = 'object_not_in_prerequisite_state',
                    HINT = 'Find them: pgembed pairs --min-jaccard ' || mining_setting('near_duplicate');
    ELSIF run.min_tokens > mining_setting('pairs_min_tokens') THEN
        RAISE EXCEPTION 'pairs_min_tokens is %, but pairs were found among chunks of % tokens and more only',
                        mining_setting('pairs_min_tokens'), run.min_tokens
              USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Find the others: pgembed pairs';
    END IF;
END $$;

-- Where a file lies between 0 and 1: a hash of seed, source and path.
CREATE FUNCTION split_hash(source text, path text) RETURNS double precision
LANGUAGE sql STABLE STRICT SET search_path FROM CURRENT
RETURN ('x0' || encode(substr(sha256(convert_to(
            concat_ws('/', mining_setting('seed')::bigint, source, path), 'UTF8')), 1, 4), 'hex'))::bit(36)::bigint / 4294967296.0;

-- The split of a file: its place against the shares in mining_settings.
CREATE FUNCTION split_of(source text, path text) RETURNS text
LANGUAGE sql STABLE STRICT SET search_path FROM CURRENT
RETURN (SELECT CASE WHEN h.u < mining_setting('train_share') THEN 'train'
                    WHEN h.u < mining_setting('train_share') + mining_setting('validation_share') THEN 'validation'
                    ELSE 'test' END
          FROM (SELECT split_hash(source, path) AS u OFFSET 0) AS h);

-- What of a docstring is asked for: its first paragraph, cut after so many words.
CREATE FUNCTION docstring_anchor(docstring text, max_words integer) RETURNS text
LANGUAGE sql IMMUTABLE
RETURN substring(regexp_replace(ltrim(docstring, E' \t\r\n'), '\n[ \t\r]*\n.*$', '')
                 FROM '^(?:\S+\s+){0,' || max_words - 1 || '}\S+');

-- Put every chunk into a split by its file, so that no chunk and no near-duplicate of it is in two.
-- Reads code_chunks, chunk_locations, candidate_pairs; rewrites chunk_splits. Returns the chunks that are in no split.
-- A chunk that stands in files of several splits is in none. A cluster is a connected component of near-duplicates; one
-- whose members fall into several splits keeps those of the first (train, validation, test), and the others are in none.
-- A chunk that was not compared with the others yet is in none either.
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
                       WHEN c.token_count < min_tokens THEN 'too few tokens to be compared'
                       -- its near-duplicates are not known, so it could be a copy of what another split holds
                       WHEN c.token_count > 0 AND NOT EXISTS (SELECT FROM jaccard_sets j WHERE j.chunk_id = b.chunk_id)
                         OR EXISTS (SELECT FROM pair_queue q WHERE q.chunk_id = b.chunk_id)
                       THEN 'it was not compared yet: run pgembed pairs' END AS reason) AS r;
    SELECT count(*) INTO left_out FROM chunk_splits WHERE split IS NULL;
    ANALYZE chunk_splits;
    RETURN left_out;
END $$;

-- All that the triplets follow from, in brief: settings, exclusions, marks, the pairs' last run, sources, with vectors the
-- generation, and where `contents` the chunks and their places too. triplet_state keeps it; another value now means that they
-- are out of date. Contents cost a pass over chunk_locations: 0.2 s at a million places. The rest is a millisecond.
CREATE FUNCTION triplet_inputs(contents boolean DEFAULT true) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET jit = off AS $$
DECLARE
    found jsonb;
BEGIN
    found := jsonb_build_object(
        'settings',   (SELECT jsonb_object_agg(s.name, s.value) FROM mining_settings s),
        'exclusions', (SELECT encode(sha256(convert_to(coalesce(string_agg(
                                  concat_ws(chr(1), e.name, e.field, e.pattern), chr(2) ORDER BY e.name), ''), 'UTF8')), 'hex')
                         FROM mining_exclusions e WHERE e.enabled),
        'blocks',     (SELECT encode(sha256(coalesce(string_agg(b.mark, '' ORDER BY b.mark), '')), 'hex')
                         FROM (SELECT c.sha256 AS mark FROM chunk_blocks c
                               UNION ALL
                               SELECT sha256(t.anchor || t.positive || t.negative || convert_to(t.kind, 'UTF8'))
                                 FROM triplet_blocks t) AS b),
        'pairs',      (SELECT max(r.id) FROM pair_runs r),
        'sources',    (SELECT encode(sha256(convert_to(coalesce(string_agg(
                                  concat_ws(chr(1), s.id, s.name), chr(2) ORDER BY s.id), ''), 'UTF8')), 'hex') FROM sources s),
        'generation', (SELECT jsonb_build_array(g.id, g.row_count)
                         FROM active_generation a JOIN generations g ON g.id = a.generation_id
                        WHERE mining_setting('use_vectors') = 1));
    IF contents THEN
        found := found || jsonb_build_object(
            'chunks', (SELECT jsonb_build_array(count(*), max(c.id)) FROM code_chunks c),
            -- the exclusive or of hashes over a key, so no place is there twice
            'places', (SELECT jsonb_build_array(count(*), bit_xor(hash_record_extended(
                                  (l.source_id, l.path, l.start_line, l.chunk_id), 0))) FROM chunk_locations l));
    END IF;
    RETURN found;
END $$;

-- Which of these inputs have changed since the triplets were made; none: they are up to date.
CREATE FUNCTION stale_inputs(contents boolean DEFAULT true) RETURNS SETOF text
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT i.key
      FROM jsonb_each(triplet_inputs(contents)) AS i
     WHERE i.value IS DISTINCT FROM (SELECT s.inputs -> i.key FROM triplet_state s)
       AND (EXISTS (SELECT FROM triplet_state) OR EXISTS (SELECT FROM code_chunks))
     ORDER BY i.key
$$;

-- Rebuild the triplets from the pairs, the splits and the settings. Returns how many there are.
-- Reads code_chunks, chunk_locations, candidate_pairs, jaccard_sets, mining_settings, mining_exclusions, chunk_blocks,
-- triplet_blocks; with vectors active_generation and code_embeddings. Rewrites chunk_splits, triplet_candidates, triplet_state.
--
-- docstring: the anchor is the docstring's first paragraph, the positive its body; the negative is the most similar body
--   that is neither the positive, nor a near-duplicate of it, nor described by the same words. Tried are the chunk's
--   look-alikes (candidate_pairs), its neighbours in the file, and those next to it in length: the rule says which it was.
-- code: anchor and positive are a candidate pair below near-duplicate; the negative is next in length and shares little.
-- All three are of one language and one split.
--
-- With vectors (the setting use_vectors) the active generation is asked too. Source of the idea that the positive's score
-- bounds a negative's: Moreira et al., "NV-Retriever", 2024, positive-aware mining (TopK-PercPos at 95%).
--   docstring: tried as well are the chunks nearest in meaning. The hardest is then the one with the highest cosine to the
--     described function, not the highest Jaccard. A docstring has no vector of its own, only its function, docstring
--     included, has; the positive is that function, whose score to itself is 1, and 0.95 of 1 bounds next to nothing. So the
--     bound is a setting of its own: above false_negative_ceiling a negative is false, and dropped. It depends on the encoder:
--     look at the highest, SELECT anchor, negative, negative_score FROM triplets_docstring ORDER BY 3 DESC.
--   code: a negative that scores above (1 - false_negative_margin) of the positive's score is false, and dropped.
--   A chunk without a vector in the generation is judged by Jaccard alone, after those that have one.
-- The nearest are four times as many by the signs of all dimensions (binary_quantize), and of these the best by the full
-- vectors; so they depend on content alone, never on an index. That takes the square of the chunks: 0.6 µs for each docstring and
-- each chunk of its split that is of similar length, 12 s at 20,000 functions.
-- Raises object_not_in_prerequisite_state when vectors are asked for and no generation is active.
CREATE FUNCTION refresh_triplets() RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_mergejoin = off SET jit = off AS $$
DECLARE
    salt             CONSTANT bytea            := convert_to(mining_setting('seed')::bigint || '/', 'UTF8');
    near_duplicate   CONSTANT double precision := mining_setting('near_duplicate');
    ratio            CONSTANT double precision := mining_setting('length_ratio');
    per_docstring    CONSTANT integer          := mining_setting('docstring_negatives');
    same_file        CONSTANT integer          := mining_setting('same_file_candidates');
    like_length      CONSTANT integer          := mining_setting('like_length_candidates');
    positive_least   CONSTANT double precision := mining_setting('code_positive_min');
    per_code         CONSTANT integer          := mining_setting('code_positives');
    negative_most    CONSTANT double precision := mining_setting('code_negative_max');
    by_vectors       CONSTANT boolean          := mining_setting('use_vectors') = 1;
    near_in_meaning  CONSTANT integer          := mining_setting('vector_candidates');
    margin           CONSTANT double precision := mining_setting('false_negative_margin');
    ceiling          CONSTANT double precision := mining_setting('false_negative_ceiling');
    began            CONSTANT timestamptz      := clock_timestamp();
    inputs           jsonb;
    generation       bigint;
    report           jsonb  := '{}';
    vectors          bigint;
    scored           bigint;
    dropped          bigint;
    total            bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('pgembed.triplets', 0));  -- two refreshes, one after the other
    PERFORM check_mining_settings();
    IF by_vectors THEN
        SELECT a.generation_id INTO generation FROM active_generation a;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'triplets are to be mined by vectors, but no generation is active'
                  USING ERRCODE = 'object_not_in_prerequisite_state',
                        HINT = 'Make one: pgembed reindex --activate. Or go without: pgembed triplets --refresh --no-by-vectors';
        END IF;
    END IF;
    inputs := triplet_inputs();
    PERFORM assign_splits();
    CREATE TEMPORARY TABLE IF NOT EXISTS eligible (
        chunk_id bigint PRIMARY KEY, sha256 bytea, language text, split text, n integer, anchor text, described text,
        slot bigint) ON COMMIT DROP;
    CREATE TEMPORARY TABLE IF NOT EXISTS tried (
        anchor_id bigint, negative_id bigint, source integer, jaccard double precision) ON COMMIT DROP;
    CREATE TEMPORARY TABLE IF NOT EXISTS scores (
        anchor_id bigint, negative_id bigint, score double precision) ON COMMIT DROP;
    TRUNCATE pg_temp.eligible, pg_temp.tried, pg_temp.scores;

    INSERT INTO pg_temp.eligible
    SELECT e.chunk_id, e.sha256, e.language, e.split, e.tokens, e.anchor,
           trim(lower(regexp_replace(e.anchor, '\W+', ' ', 'g'))),
           row_number() OVER (PARTITION BY e.language, e.split ORDER BY e.tokens, sha256(salt || e.sha256))
      FROM chunk_eligibility e
     WHERE e.refused IS NULL;
    CREATE INDEX ON pg_temp.eligible (language, split, slot);
    ANALYZE pg_temp.eligible;

    -- what is tried as a negative: 1 look-alikes, 2 the same file, 3 like length, 4 near in meaning
    INSERT INTO pg_temp.tried
    SELECT d.a, d.b, 1, d.jaccard
      FROM (SELECT chunk_a AS a, chunk_b AS b, jaccard FROM candidate_pairs
            UNION ALL SELECT chunk_b, chunk_a, jaccard FROM candidate_pairs) AS d
      JOIN pg_temp.eligible x ON x.chunk_id = d.a
      JOIN pg_temp.eligible y ON y.chunk_id = d.b AND y.split = x.split AND y.language = x.language
     WHERE d.jaccard < near_duplicate;

    IF by_vectors THEN
        CREATE TEMPORARY TABLE IF NOT EXISTS meanings (
            chunk_id bigint PRIMARY KEY, language text, split text, slot bigint, n integer, bits bit(2560)) ON COMMIT DROP;
        CREATE TEMPORARY TABLE IF NOT EXISTS near (anchor_id bigint, negative_id bigint) ON COMMIT DROP;
        TRUNCATE pg_temp.meanings, pg_temp.near;
        -- every vector is read once for this, and then only those of what is tried
        INSERT INTO pg_temp.meanings
        SELECT e.chunk_id, e.language, e.split, e.slot, e.n, binary_quantize(v.embedding)::bit(2560)
          FROM pg_temp.eligible e
          JOIN code_embeddings v ON v.generation_id = generation AND v.chunk_id = e.chunk_id
         ORDER BY e.language, e.split, e.n;
        GET DIAGNOSTICS vectors = ROW_COUNT;
        CREATE INDEX ON pg_temp.meanings (language, split, n);
        ANALYZE pg_temp.meanings;
        INSERT INTO pg_temp.near
        SELECT x.chunk_id, c.chunk_id
          FROM pg_temp.eligible x
          JOIN pg_temp.meanings m ON m.chunk_id = x.chunk_id
         CROSS JOIN LATERAL (
               SELECT y.chunk_id
                 FROM pg_temp.meanings y
                WHERE y.language = x.language AND y.split = x.split AND y.chunk_id <> x.chunk_id
                  AND y.n BETWEEN ceil(x.n / ratio)::integer AND floor(x.n * ratio)::integer
                ORDER BY y.bits <~> m.bits, y.slot
                LIMIT 4 * near_in_meaning) AS c
         WHERE x.described IS NOT NULL;
        ANALYZE pg_temp.near;
    END IF;

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
             CROSS JOIN generate_series(-(like_length / 2), (like_length + 1) / 2) AS d(step)
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

    IF by_vectors THEN
        CREATE TEMPORARY TABLE IF NOT EXISTS wanted (
            anchor_id bigint, negative_id bigint, PRIMARY KEY (anchor_id, negative_id)) ON COMMIT DROP;
        TRUNCATE pg_temp.wanted;
        INSERT INTO pg_temp.wanted
        SELECT t.anchor_id, t.negative_id FROM pg_temp.tried t UNION SELECT r.anchor_id, r.negative_id FROM pg_temp.near r;
        ANALYZE pg_temp.wanted;
        -- An anchor's vector is read once (subvector copies it out of TOAST, OFFSET 0 holds the copy), and against it those
        -- of all that is tried with it: 10 µs a pair.
        INSERT INTO pg_temp.scores
        SELECT x.chunk_id, y.negative_id, y.score
          FROM (SELECT v.chunk_id, subvector(v.embedding, 1, 2560) AS embedding
                  FROM code_embeddings v
                 WHERE v.generation_id = generation AND v.chunk_id IN (SELECT w.anchor_id FROM pg_temp.wanted w)
                OFFSET 0) AS x
         CROSS JOIN LATERAL (
               SELECT w.negative_id, 1 - (v.embedding <=> x.embedding) AS score
                 FROM pg_temp.wanted w
                CROSS JOIN LATERAL (SELECT e.embedding FROM code_embeddings e
                                     WHERE e.generation_id = generation AND e.chunk_id = w.negative_id OFFSET 0) AS v
                WHERE w.anchor_id = x.chunk_id OFFSET 0) AS y;
        GET DIAGNOSTICS scored = ROW_COUNT;
        ANALYZE pg_temp.scores;
        INSERT INTO pg_temp.tried
        SELECT q.anchor_id, q.negative_id, 4, k.common / (k.n - k.common)
          FROM (SELECT r.anchor_id, r.negative_id,
                       row_number() OVER (PARTITION BY r.anchor_id ORDER BY s.score DESC, y.sha256) AS nearness
                  FROM pg_temp.near r
                  JOIN pg_temp.scores s ON s.anchor_id = r.anchor_id AND s.negative_id = r.negative_id
                  JOIN pg_temp.eligible y ON y.chunk_id = r.negative_id) AS q
         CROSS JOIN LATERAL (SELECT p.n + r.n AS n, -(p.members <#> r.members) AS common
                               FROM jaccard_sets p, jaccard_sets r
                              WHERE p.chunk_id = q.anchor_id AND r.chunk_id = q.negative_id OFFSET 0) AS k
         WHERE q.nearness <= near_in_meaning AND k.common / (k.n - k.common) < near_duplicate;
    END IF;
    ANALYZE pg_temp.tried;

    DELETE FROM triplet_candidates;
    WITH described AS (
        SELECT t.anchor_id, t.negative_id, t.jaccard, min(t.source) AS source, s.score,
               coalesce(s.score > ceiling, false) AS is_false,
               row_number() OVER (PARTITION BY t.anchor_id, coalesce(s.score > ceiling, false)
                                      ORDER BY s.score DESC NULLS LAST, t.jaccard DESC, y.sha256) AS hardness
          FROM pg_temp.tried t
          JOIN pg_temp.eligible x ON x.chunk_id = t.anchor_id
          JOIN pg_temp.eligible y ON y.chunk_id = t.negative_id
          LEFT JOIN pg_temp.scores s ON s.anchor_id = t.anchor_id AND s.negative_id = t.negative_id
         WHERE x.described IS NOT NULL AND y.described IS DISTINCT FROM x.described
           AND y.n BETWEEN x.n / ratio AND x.n * ratio
           AND NOT EXISTS (SELECT FROM triplet_blocks b
                            WHERE b.kind = 'docstring' AND b.anchor = x.sha256 AND b.positive = x.sha256 AND b.negative = y.sha256)
         GROUP BY t.anchor_id, t.negative_id, t.jaccard, s.score, y.sha256
    ), nearest AS (
        SELECT t.anchor_id, t.negative_id AS positive_id, t.jaccard,
               row_number() OVER (PARTITION BY t.anchor_id ORDER BY t.jaccard DESC, y.sha256) AS nearness
          FROM pg_temp.tried t JOIN pg_temp.eligible y ON y.chunk_id = t.negative_id
         WHERE t.source = 1 AND t.jaccard >= positive_least
    ), positives AS MATERIALIZED (
        SELECT p.*, s.score, s.score - margin * abs(s.score) AS bound
          FROM nearest p
          LEFT JOIN pg_temp.scores s ON s.anchor_id = p.anchor_id AND s.negative_id = p.positive_id
         WHERE p.nearness <= per_code
    ), unlike AS (
        SELECT DISTINCT p.anchor_id, p.positive_id, p.nearness, p.jaccard AS positive_jaccard, p.score AS positive_score,
               t.negative_id, t.jaccard, s.score, coalesce(s.score > p.bound, false) AS is_false, z.sha256
          FROM positives p
          JOIN pg_temp.tried t ON t.anchor_id = p.anchor_id AND t.jaccard <= negative_most AND t.source < 4
          JOIN pg_temp.eligible x ON x.chunk_id = p.anchor_id
          JOIN pg_temp.eligible y ON y.chunk_id = p.positive_id
          JOIN pg_temp.eligible z ON z.chunk_id = t.negative_id
          LEFT JOIN pg_temp.scores s ON s.anchor_id = t.anchor_id AND s.negative_id = t.negative_id
         WHERE (x.described IS NULL OR z.described IS DISTINCT FROM x.described)
           AND (y.described IS NULL OR z.described IS DISTINCT FROM y.described)
           AND z.n BETWEEN y.n / ratio AND y.n * ratio
           AND NOT EXISTS (SELECT FROM candidate_pairs c
                            WHERE c.chunk_a = least(p.positive_id, t.negative_id)
                              AND c.chunk_b = greatest(p.positive_id, t.negative_id) AND c.jaccard >= near_duplicate)
           AND NOT EXISTS (SELECT FROM triplet_blocks b
                            WHERE b.kind = 'code' AND b.anchor = x.sha256 AND b.positive = y.sha256 AND b.negative = z.sha256)
    ), ranked AS (
        SELECT u.*, row_number() OVER (PARTITION BY u.anchor_id, u.positive_id, u.is_false
                                           ORDER BY u.jaccard DESC, u.sha256) AS hardness
          FROM unlike u
    ), every AS (
        SELECT 'docstring' AS kind, d.anchor_id, d.anchor_id AS positive_id, d.negative_id, 1::float8 AS positive_jaccard,
               d.jaccard AS negative_jaccard,
               'docstring / ' || (ARRAY['look-alike', 'same file', 'like length', 'near in meaning'])[d.source] AS rule,
               CASE WHEN d.score IS NOT NULL THEN 1::float8 END AS positive_score, d.score AS negative_score
          FROM described d WHERE d.hardness <= per_docstring AND NOT d.is_false
        UNION ALL
        SELECT 'code', u.anchor_id, u.positive_id, u.negative_id, u.positive_jaccard, u.jaccard, 'look-alike / shares little',
               u.positive_score, u.score
          FROM ranked u WHERE u.hardness = u.nearness AND NOT u.is_false
    ), made AS (
        INSERT INTO triplet_candidates (ordinal, kind, split, anchor_id, positive_id, negative_id, positive_jaccard,
                                        negative_jaccard, rule, anchor, generation_id, positive_score, negative_score)
        SELECT row_number() OVER (ORDER BY sha256(salt || x.sha256 || y.sha256 || z.sha256 || convert_to(e.kind, 'UTF8'))),
               e.kind, x.split, e.anchor_id, e.positive_id, e.negative_id, e.positive_jaccard, e.negative_jaccard, e.rule,
               CASE WHEN e.kind = 'docstring' THEN x.anchor END,
               CASE WHEN num_nonnulls(e.positive_score, e.negative_score) > 0 THEN generation END, e.positive_score,
               e.negative_score
          FROM every e
          JOIN pg_temp.eligible x ON x.chunk_id = e.anchor_id
          JOIN pg_temp.eligible y ON y.chunk_id = e.positive_id
          JOIN pg_temp.eligible z ON z.chunk_id = e.negative_id
        RETURNING ordinal
    )
    SELECT (SELECT count(*) FROM made),
           (SELECT count(*) FROM described d WHERE d.is_false) + (SELECT count(*) FROM ranked u WHERE u.is_false)
      INTO total, dropped;
    ANALYZE triplet_candidates;
    report := jsonb_build_object('triplets', total, 'seconds', extract(epoch FROM clock_timestamp() - began))
           || CASE WHEN by_vectors
                   THEN jsonb_build_object('generation', generation, 'vectors', vectors, 'scored', scored, 'dropped', dropped,
                                           'chunks', (SELECT count(*) FROM pg_temp.eligible))
                   ELSE '{}' END;
    INSERT INTO triplet_state (made_at, inputs, report) VALUES (now(), inputs, report)
    ON CONFLICT (only_row) DO UPDATE SET made_at = excluded.made_at, inputs = excluded.inputs, report = excluded.report;
    RETURN total;
END $$;

-- Mark a triplet, or a chunk in whatever role, as bad: the views leave it out at once, and every later refresh too.
-- To take it back, delete the row of triplet_blocks or chunk_blocks.
CREATE FUNCTION block_triplet(ordinal bigint, reason text) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO triplet_blocks (kind, anchor, positive, negative, reason)
    SELECT t.kind, a.sha256, p.sha256, n.sha256, block_triplet.reason
      FROM triplet_candidates t
      JOIN code_chunks a ON a.id = t.anchor_id
      JOIN code_chunks p ON p.id = t.positive_id
      JOIN code_chunks n ON n.id = t.negative_id
     WHERE t.ordinal = block_triplet.ordinal
    ON CONFLICT ON CONSTRAINT triplet_blocks_pkey DO UPDATE SET reason = excluded.reason;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no triplet %', ordinal
              USING ERRCODE = 'no_data_found', HINT = 'SELECT ordinal FROM pgembed.triplets';
    END IF;
END $$;

CREATE FUNCTION block_chunk(chunk_id bigint, reason text) RETURNS void
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO chunk_blocks (sha256, reason)
    SELECT c.sha256, block_chunk.reason FROM code_chunks c WHERE c.id = block_chunk.chunk_id
    ON CONFLICT ON CONSTRAINT chunk_blocks_pkey DO UPDATE SET reason = excluded.reason;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no chunk %', chunk_id
              USING ERRCODE = 'no_data_found', HINT = 'SELECT id FROM pgembed.code_chunks';
    END IF;
END $$;
