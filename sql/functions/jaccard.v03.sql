-- Exact Jaccard over the chunks' token sets, in plain SQL with pgvector.
--
-- J(A, B) = |A ∩ B| / |A ∪ B|. Take any fixed order of tokens. Two sets with J ≥ t then
--   share a token among the first n − ⌈t·n⌉ + 1 of each (prefix filter),
--   have sizes within a factor t (length filter),
--   leave enough tokens behind the first one they share for the overlap they need (positional filter),
--   differ in at most (1−t)/(1+t)·(|A|+|B|) tokens, which a 256-bit xor sketch bounds from below (sketch filter).
-- What passes is counted exactly. An empty set pairs with none, not even with another empty one.
-- Thresholds are integers in thousandths, so that nothing is rounded at the boundary.
--
-- The plan matters by orders of magnitude, so it is forced: every MATERIALIZED, OFFSET 0 and ORDER BY in a subquery is
-- load-bearing (without them the planner joined 100,000 sets for ten minutes instead of two seconds), and merge joins
-- are off. Positions are unnested from an array, not generated: the planner takes generate_series for a thousand rows a
-- set, and plans the hash join on disk, in 64 parts.
-- Source of the prefix filter: Bayardo, Ma, Srikant, "Scaling up all pairs similarity search", WWW 2007; of the positional
-- one and the smaller set's shorter prefix: Xiao et al., "Efficient similarity joins for near duplicate detection", WWW 2008.

-- Rank the frequent tokens of code_chunks, the most frequent highest, by a sample of some 10,000 chunks. The order of the
-- join is: tokens without a rank, by falling id, for they are rare or new; then the ranked. Any order is exact. That of all
-- 40,000 tokens of 100,000 functions joins 2% fewer rows, and took seven times as long to find.
-- While there are sets nothing is ranked, for their prefixes stand in the order that there was. Returns the ranks given.
CREATE FUNCTION jaccard_rank_tokens() RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT SET jit = off AS $$
DECLARE
    share CONSTANT double precision := (SELECT least(100, 100 * 10000 / greatest(c.reltuples, 1))
                                          FROM pg_class c WHERE c.oid = 'code_chunks'::regclass);
    given bigint;
BEGIN
    IF EXISTS (SELECT FROM jaccard_sets) THEN
        RETURN 0;
    END IF;
    DELETE FROM jaccard_ranks;
    INSERT INTO jaccard_ranks (token_id, rank)
    SELECT k.token_id, row_number() OVER (ORDER BY k.chunks, k.token_id DESC)
      FROM (SELECT m.token_id, count(*) AS chunks
              FROM (SELECT unnest(c.token_ids) AS token_id
                      FROM code_chunks c TABLESAMPLE SYSTEM (share) REPEATABLE (0) OFFSET 0) AS m
             GROUP BY m.token_id HAVING count(*) > 3) AS k;
    GET DIAGNOSTICS given = ROW_COUNT;
    ANALYZE jaccard_ranks;
    RETURN given;
END $$;

-- Make the sets of the chunks first_id … last_id that have none yet, with prefixes for thresholds from min_jaccard on.
-- Reads code_chunks, jaccard_ranks; writes jaccard_sets, and pair_queue if told so. Returns the sets made.
CREATE FUNCTION jaccard_prepare(min_jaccard integer, first_id bigint DEFAULT 0,
                                last_id bigint DEFAULT 9223372036854775807, queued boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT SET jit = off AS $$
DECLARE
    bit_0  CONSTANT bit(256) := 1::bit(256);
    ids    CONSTANT bigint[] := ARRAY(SELECT c.id FROM code_chunks c
                                       WHERE c.id BETWEEN first_id AND last_id
                                         AND NOT EXISTS (SELECT FROM jaccard_sets s WHERE s.chunk_id = c.id));
    -- ranks by token id, 0 where there is none: read three times faster than by a join. Of nulls it would be thirty times
    -- slower, for each look then walks through all before it.
    ranks  integer[] := array_fill(0, ARRAY[(SELECT coalesce(max(r.token_id), 1) FROM jaccard_ranks r)]);
    ranked jaccard_ranks;
    made   bigint;
BEGIN
    FOR ranked IN SELECT * FROM jaccard_ranks LOOP
        ranks[ranked.token_id] := ranked.rank;
    END LOOP;
    INSERT INTO jaccard_sets (chunk_id, n, prefix, members, sketch)
    SELECT c.id, c.n,
           ARRAY(SELECT coalesce(nullif(ranks[t.id], 0), -t.id) AS place FROM (SELECT unnest(c.token_ids) AS id) AS t
                  ORDER BY place LIMIT c.n - (min_jaccard * c.n + 999) / 1000 + 1),
           CASE WHEN c.n <= 16000 THEN ('{' || array_to_string(c.token_ids, ':1,') || ':1}/1000000000')::sparsevec END,
           (SELECT bit_xor(bit_0 << (t.id & 255)) FROM (SELECT unnest(c.token_ids) AS id) AS t)
           -- held until the sets are there: a chunk that is deleted meanwhile would leave its set behind
      FROM (SELECT c.id, cardinality(c.token_ids) AS n, c.token_ids
              FROM code_chunks c WHERE c.id = ANY (ids) AND c.token_count > 0 FOR KEY SHARE OF c) AS c;
    GET DIAGNOSTICS made = ROW_COUNT;
    IF queued THEN
        INSERT INTO pair_queue (chunk_id) SELECT s.chunk_id FROM jaccard_sets s WHERE s.chunk_id = ANY (ids);
    END IF;
    RETURN made;
END $$;

-- A chunk whose tokens are changed in place has neither set nor pairs until the next run.
CREATE FUNCTION forget_token_set() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM candidate_pairs p WHERE p.chunk_a = NEW.id OR p.chunk_b = NEW.id;
    DELETE FROM jaccard_sets s WHERE s.chunk_id = NEW.id;
    RETURN NULL;
END $$;
CREATE TRIGGER code_chunks_forget_token_set AFTER UPDATE OF token_ids ON code_chunks
    FOR EACH ROW WHEN (OLD.token_ids IS DISTINCT FROM NEW.token_ids) EXECUTE FUNCTION forget_token_set();

-- Cut the sets, ordered by (n, chunk_id), into slices of about `size` that take about as long: what can be joined and
-- committed one by one. To join a set of n tokens takes as long as n + 20, measured on 100,000 functions at 700.
-- Sets of one size weigh the same: so their numbers say where to cut, and only those of the sizes that are cut are ordered.
CREATE FUNCTION jaccard_slices(size integer)
RETURNS TABLE (ordinal integer, low_n integer, low_id bigint, high_n integer, high_id bigint, sets bigint)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    WITH sizes AS MATERIALIZED (
        SELECT g.n, g.n + 20 AS weight, g.sets, sum(g.sets) OVER o - g.sets AS before,
               sum(g.sets * (g.n + 20)) OVER o - g.sets * (g.n + 20) AS weight_before
          FROM (SELECT s.n, count(*) AS sets FROM jaccard_sets s GROUP BY s.n) AS g
        WINDOW o AS (ORDER BY g.n)
    ), cuts AS MATERIALIZED (          -- after the place-th set of n tokens
        SELECT DISTINCT z.n, ceil((c.weight - z.weight_before) / z.weight) AS place, z.before
          FROM (SELECT (sum(z.sets) + size - 1)::bigint / size AS parts, sum(z.sets * z.weight) AS weight FROM sizes z) AS every
         CROSS JOIN LATERAL (SELECT every.weight * k / every.parts AS weight FROM generate_series(1, every.parts) AS k) AS c
          JOIN sizes z ON c.weight > z.weight_before AND c.weight <= z.weight_before + z.sets * z.weight
    )
    SELECT (row_number() OVER o)::integer, coalesce(lag(e.n) OVER o, 0), coalesce(lag(s.chunk_id) OVER o, 0),
           e.n, s.chunk_id, (e.before + e.place - coalesce(lag(e.before + e.place) OVER o, 0))::bigint
      FROM (SELECT s.n, s.chunk_id, row_number() OVER (PARTITION BY s.n ORDER BY s.chunk_id) AS place
              FROM jaccard_sets s WHERE s.n IN (SELECT c.n FROM cuts c)) AS s
      JOIN cuts AS e USING (n, place)
    WINDOW o AS (ORDER BY e.n, s.chunk_id)
$$;

-- The tokens that two chunks share, where the sets are too large for a sparsevec.
CREATE FUNCTION count_shared(chunk_x bigint, chunk_y bigint) RETURNS bigint
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT count(*)
      FROM (SELECT unnest(x.token_ids) FROM code_chunks x WHERE x.id = chunk_x
            INTERSECT
            SELECT unnest(y.token_ids) FROM code_chunks y WHERE y.id = chunk_y) AS shared
$$;

-- The pairs that pass the filters, whose larger set (by n, then id) lies above (low_n, low_id) and up to (high_n, high_id).
-- Sets of fewer than min_tokens are left out.
--
-- A token of the smaller set's prefix says how large its partner may be: from n up to n/t, and less the further back it
-- stands. Sizes are cut into three buckets for each factor 1/t; the larger set's rows stand in their bucket, the smaller
-- set's probe each that the token allows. Of 100,000 functions at 700 that joins 10 million rows, where two buckets of
-- the factor 1/t gave 25 million; finer ones cost more probes than they save. Token and bucket are one number, and bounds
-- are computed before the join: a row takes 0.11 µs, and all of them a fifth less time than by two columns.
CREATE FUNCTION jaccard_candidates(min_jaccard integer, min_tokens integer, low_n integer, low_id bigint, high_n integer,
                                   high_id bigint)
RETURNS TABLE (x bigint, y bigint)
LANGUAGE plpgsql STABLE ROWS 100000 SET search_path FROM CURRENT SET enable_mergejoin = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    t      CONSTANT integer := min_jaccard;
    gap    CONSTANT double precision := (1000 - t) / (1000.0 + t);
    width  CONSTANT double precision := ln(1000.0 / least(t, 999)) / 3;
    places CONSTANT integer[] := ARRAY(SELECT generate_series(1, high_n));
BEGIN
    RETURN QUERY
    SELECT DISTINCT least(a.chunk_id, b.chunk_id), greatest(a.chunk_id, b.chunk_id)
      FROM (SELECT s.key + d.up AS key, s.n, s.most_n, s.far, s.chunk_id, s.sketch
                   -- in the order of tokens, here and below: the hash join meets equal ones in a row, twice as fast
              FROM (SELECT s.rank::bigint * 65536 + s.bucket AS key, s.n, s.most_n, s.far, s.chunk_id, s.sketch,
                           floor(ln(greatest(s.most_n, 1)::float8) / width)::integer - s.bucket AS ups
                      FROM (SELECT s.rank, s.bucket, s.n, s.far, s.chunk_id, s.sketch,
                                   least(s.n * 1000 / t, ((s.n - s.place + 1) * (1000 + t) - t * s.n) / t) AS most_n
                              FROM (SELECT unnest(s.prefix[1 : s.short]) AS rank, unnest(places[1 : s.short]) AS place,
                                           s.bucket, s.n, s.far, s.chunk_id, s.sketch
                                      FROM (SELECT s.chunk_id, s.n, s.prefix, s.sketch, s.n * gap AS far,
                                                   s.n - (2 * t * s.n + 999 + t) / (1000 + t) + 1 AS short,
                                                   floor(ln(s.n::float8) / width)::integer AS bucket
                                              FROM jaccard_sets s
                                             WHERE s.n >= greatest((t * low_n + 999) / 1000, min_tokens)
                                               AND (s.n, s.chunk_id) < (high_n, high_id) OFFSET 0) AS s) AS s) AS s
                     ORDER BY s.rank) AS s
              -- rounding may put n/t one bucket further: four steps, not three
              JOIN (VALUES (0), (1), (2), (3), (4)) AS d(up) ON d.up <= s.ups
            OFFSET 0) AS b
      JOIN (SELECT s.rank::bigint * 65536 + s.bucket AS key, s.n, s.far, s.chunk_id, s.sketch,
                   least(s.n, ((s.n - s.place + 1) * (1000 + t) - t * s.n) / t) AS most_n
              FROM (SELECT unnest(s.prefix[1 : s.long]) AS rank, unnest(places[1 : s.long]) AS place,
                           s.bucket, s.n, s.far, s.chunk_id, s.sketch
                      FROM (SELECT s.chunk_id, s.n, s.prefix, s.sketch, s.n * gap + 1e-6 AS far,
                                   s.n - (t * s.n + 999) / 1000 + 1 AS long,
                                   floor(ln(s.n::float8) / width)::integer AS bucket
                              FROM jaccard_sets s
                             WHERE (s.n, s.chunk_id) > (low_n, low_id) AND (s.n, s.chunk_id) <= (high_n, high_id)
                               AND s.n >= min_tokens OFFSET 0) AS s) AS s
             ORDER BY s.rank) AS a ON a.key = b.key
     WHERE b.n <= a.most_n AND a.n <= b.most_n AND (b.n < a.n OR b.chunk_id < a.chunk_id)
       AND (a.sketch <~> b.sketch) <= a.far + b.far;
END $$;

-- The pairs with Jaccard ≥ min_jaccard / 1000 among the candidates, each counted exactly. The sets that are counted are
-- read once, and not for each pair by its key: that took four times as long.
CREATE FUNCTION jaccard_join(min_jaccard integer, min_tokens integer, low_n integer, low_id bigint, high_n integer, high_id bigint)
RETURNS TABLE (chunk_a bigint, chunk_b bigint, intersection integer, jaccard double precision)
LANGUAGE sql STABLE SET search_path FROM CURRENT SET enable_mergejoin = off SET jit = off AS $$
    WITH candidates AS MATERIALIZED (
        SELECT c.x, c.y FROM jaccard_candidates(min_jaccard, min_tokens, low_n, low_id, high_n, high_id) AS c
    ), held AS MATERIALIZED (
        SELECT s.chunk_id, s.n, s.members
          FROM jaccard_sets s
         WHERE s.chunk_id IN (SELECT c.x FROM candidates c UNION ALL SELECT c.y FROM candidates c)
    )
    SELECT v.x, v.y, v.common::integer, v.common / (v.total - v.common)
      FROM (SELECT c.x, c.y, p.n + q.n AS total, coalesce(-(p.members <#> q.members), count_shared(c.x, c.y)) AS common
              FROM candidates c JOIN held p ON p.chunk_id = c.x JOIN held q ON q.chunk_id = c.y OFFSET 0) AS v
     WHERE 1000 * v.common >= min_jaccard * (v.total - v.common)
$$;

-- All pairs of prepared sets with Jaccard ≥ min_jaccard / 1000. Sets of fewer than min_tokens are left out.
-- At 100,000 functions of 28 tokens: about 3 s at 700.
CREATE FUNCTION jaccard_pairs(min_jaccard integer, min_tokens integer DEFAULT 0)
RETURNS TABLE (chunk_a bigint, chunk_b bigint, intersection integer, jaccard double precision)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT j.chunk_a, j.chunk_b, j.intersection, j.jaccard
      FROM jaccard_slices(50000) AS s
     CROSS JOIN LATERAL jaccard_join(min_jaccard, min_tokens, s.low_n, s.low_id, s.high_n, s.high_id) AS j
$$;

-- The pairs of these chunks with any prepared set: what new chunks add. The sets must be prepared for this threshold or a
-- lower one. One pass over all prefixes: of 100,000 functions 0.14 s for a hundred chunks, 0.3 for a thousand. (An index on
-- the prefixes found the pairs of one chunk in 4 ms, and cost a full run as much as thirty such passes.)
CREATE FUNCTION jaccard_pairs_of(chunk_ids bigint[], min_jaccard integer, min_tokens integer DEFAULT 0)
RETURNS TABLE (chunk_a bigint, chunk_b bigint, intersection integer, jaccard double precision)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET enable_mergejoin = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    t     CONSTANT integer := min_jaccard;
    gap   CONSTANT double precision := (1000 - t) / (1000.0 + t);
    width CONSTANT double precision := ln(1000.0 / least(t, 999)) / 3;
    steps CONSTANT integer[] := '{0,1,2,3,4,5,6,7,8}';  -- from t·n to n/t are six, and one or two more where rounded
BEGIN
    IF EXISTS (SELECT FROM jaccard_sets s
                WHERE s.chunk_id = ANY (chunk_ids) AND cardinality(s.prefix) < s.n - (t * s.n + 999) / 1000 + 1) THEN
        RAISE EXCEPTION 'the sets are prepared for a higher threshold than %', t / 1000.0
              USING HINT = 'Run `pgembed pairs` with this --min-jaccard, or take a higher one.';
    END IF;
    RETURN QUERY
    WITH given AS MATERIALIZED (
        SELECT s.chunk_id, s.n, s.sketch, s.prefix[1 : s.n - (t * s.n + 999) / 1000 + 1] AS prefix
          FROM jaccard_sets s WHERE s.chunk_id = ANY (chunk_ids) AND s.n >= min_tokens
    ), wanted AS MATERIALIZED (        -- a token, and a bucket of sizes in which it may find a partner
        SELECT p.rank, p.first + unnest(steps[1 : floor(ln(greatest(p.most_n, 1)::float8) / width)::integer - p.first + 1])
                       AS bucket, p.n, p.least_n, p.most_n, p.n * gap + 1e-6 AS far, p.chunk_id, p.sketch
          FROM (SELECT u.rank, floor(ln(greatest((t * g.n + 999) / 1000, 1)::float8) / width)::integer AS first,
                       g.n, g.chunk_id, g.sketch, (t * g.n + 999) / 1000 AS least_n,
                       least(g.n * 1000 / t, ((g.n - u.place::integer + 1) * (1000 + t) - t * g.n) / t) AS most_n
                  FROM given g CROSS JOIN LATERAL unnest(g.prefix) WITH ORDINALITY AS u(rank, place)) AS p
    ), candidates AS MATERIALIZED (
        SELECT DISTINCT least(a.chunk_id, b.chunk_id) AS x, greatest(a.chunk_id, b.chunk_id) AS y
               -- unnested and joined at once: to compute a key for each row in between takes as long as the join
          FROM (SELECT unnest(s.prefix[1 : s.long]) AS rank, s.bucket, s.n, s.far, s.chunk_id, s.sketch
                  FROM (SELECT s.chunk_id, s.n, s.prefix, s.sketch, s.n * gap AS far,
                               s.n - (t * s.n + 999) / 1000 + 1 AS long, floor(ln(s.n::float8) / width)::integer AS bucket
                          FROM jaccard_sets s
                         WHERE s.n >= min_tokens OFFSET 0) AS s) AS b
          JOIN wanted a ON a.rank = b.rank AND a.bucket = b.bucket
         WHERE b.n <= a.most_n AND b.n >= a.least_n AND a.chunk_id <> b.chunk_id
           AND (a.sketch <~> b.sketch) <= a.far + b.far
    )
    SELECT c.x, c.y, v.common::integer, v.common / (v.total - v.common)
      FROM candidates c
     CROSS JOIN LATERAL (
           SELECT p.n + q.n AS total, coalesce(-(p.members <#> q.members), count_shared(c.x, c.y)) AS common
             FROM jaccard_sets p, jaccard_sets q WHERE p.chunk_id = c.x AND q.chunk_id = c.y OFFSET 0) AS v
     WHERE 1000 * v.common >= t * (v.total - v.common);
END $$;
