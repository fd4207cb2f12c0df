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
-- load-bearing (without them the planner joined 100,000 sets for ten minutes instead of three seconds), and merge joins
-- are off.
-- Source of the prefix filter: Bayardo, Ma, Srikant, "Scaling up all pairs similarity search", WWW 2007; of the positional
-- one and the smaller set's shorter prefix: Xiao et al., "Efficient similarity joins for near duplicate detection", WWW 2008.

-- Give every token of code_chunks a rank. Tokens not seen before go below all others, for they are the rarest: so ranks,
-- and the sets made from them, never change. Returns the ranks given.
CREATE FUNCTION jaccard_rank_tokens() RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT SET jit = off AS $$
DECLARE
    lowest integer;
    given  bigint;
BEGIN
    -- eight digits keep the text of a sparsevec short; its indexes go up to 1,000,000,000
    SELECT coalesce(min(r.rank), 100000000) INTO lowest FROM jaccard_ranks r;
    -- counted before they are held against the ranks: the other way round is three times slower
    WITH counted AS MATERIALIZED (
        SELECT m.token_id, count(*) AS chunks
          FROM (SELECT unnest(c.token_ids) AS token_id FROM code_chunks c
                 WHERE NOT EXISTS (SELECT FROM jaccard_sets s WHERE s.chunk_id = c.id) OFFSET 0) AS m
         GROUP BY m.token_id
    )
    INSERT INTO jaccard_ranks (token_id, rank)
    SELECT k.token_id, (lowest - row_number() OVER (ORDER BY k.chunks DESC, k.token_id))::integer
      FROM counted k
     WHERE NOT EXISTS (SELECT FROM jaccard_ranks r WHERE r.token_id = k.token_id);
    GET DIAGNOSTICS given = ROW_COUNT;
    IF given > 0 THEN
        ANALYZE jaccard_ranks;
    END IF;
    RETURN given;
END $$;

-- Make the sets of the chunks first_id … last_id that have none yet, with prefixes for thresholds from min_jaccard on.
-- Needs ranks. Reads code_chunks, jaccard_ranks; writes jaccard_sets, and pair_queue if told so. Returns the sets made.
--
-- Ranks are read from an array by token id, which is three times faster than a join; it costs a pass over jaccard_ranks,
-- so that a few chunks look theirs up one by one.
CREATE FUNCTION jaccard_prepare(min_jaccard integer, first_id bigint DEFAULT 0,
                                last_id bigint DEFAULT 9223372036854775807, queued boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT SET jit = off AS $$
DECLARE
    few    CONSTANT integer := 2000;
    bit_0  CONSTANT bit(256) := 1::bit(256);
    ids    bigint[];
    ranked integer[];  -- by token id; null where there are few
    made   bigint;
BEGIN
    SELECT array_agg(c.id) INTO ids
      FROM code_chunks c
     WHERE c.id BETWEEN first_id AND last_id AND c.token_count > 0
       AND NOT EXISTS (SELECT FROM jaccard_sets s WHERE s.chunk_id = c.id);
    IF cardinality(ids) >= few THEN
        SELECT array_agg(r.rank ORDER BY t.id) INTO ranked
          FROM (SELECT generate_series(1, max(r.token_id)) AS id FROM jaccard_ranks r) AS t
          LEFT JOIN jaccard_ranks r ON r.token_id = t.id;
    END IF;
    WITH sets AS MATERIALIZED (
        SELECT c.id AS chunk_id, cardinality(m.ranks) AS n, m.ranks, m.sketch
               -- held until the sets are there: a chunk that is deleted meanwhile would leave its set behind
          FROM (SELECT c.id, c.token_ids FROM code_chunks c WHERE c.id = ANY (ids) FOR KEY SHARE OF c) AS c
         CROSS JOIN LATERAL (
               SELECT array_agg(k.rank) AS ranks, bit_xor(bit_0 << (hashint4(k.rank) & 255)) AS sketch
                 FROM (SELECT coalesce(ranked[t.token_id],
                                       (SELECT r.rank FROM jaccard_ranks r WHERE r.token_id = t.token_id)) AS rank
                         FROM unnest(c.token_ids) AS t(token_id)
                        ORDER BY rank) AS k) AS m
    ), stored AS (
        INSERT INTO jaccard_sets (chunk_id, n, ranks, prefix, members, sketch)
        SELECT s.chunk_id, s.n, s.ranks, s.ranks[1 : s.n - (min_jaccard * s.n + 999) / 1000 + 1],
               CASE WHEN s.n <= 16000
                    THEN ('{' || array_to_string(s.ranks, ':1,') || ':1}/1000000000')::sparsevec END,
               s.sketch
          FROM sets s
        RETURNING chunk_id
    ), waiting AS (
        INSERT INTO pair_queue (chunk_id) SELECT s.chunk_id FROM stored s WHERE queued
    )
    SELECT count(*) INTO made FROM stored;
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

-- Cut the sets, ordered by (n, chunk_id), into slices of `size`: what can be joined and committed one by one.
CREATE FUNCTION jaccard_slices(size integer)
RETURNS TABLE (ordinal integer, low_n integer, low_id bigint, high_n integer, high_id bigint, sets bigint)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT (row_number() OVER o)::integer, coalesce(lag(e.n) OVER o, 0), coalesce(lag(e.chunk_id) OVER o, 0),
           e.n, e.chunk_id, e.place - coalesce(lag(e.place) OVER o, 0)
      FROM (SELECT s.n, s.chunk_id, row_number() OVER (ORDER BY s.n, s.chunk_id) AS place, count(*) OVER () AS every
              FROM jaccard_sets s) AS e
     WHERE e.place % size = 0 OR e.place = e.every
    WINDOW o AS (ORDER BY e.n, e.chunk_id)
$$;

-- The pairs with Jaccard ≥ min_jaccard / 1000 whose larger set (by n, then id) lies above (low_n, low_id) and up to
-- (high_n, high_id). Sets of fewer than min_tokens are left out.
--
-- A token of the smaller set's prefix says how large its partner may be: from n up to n/t, and less the further back it
-- stands. Sizes are cut into three buckets for each factor 1/t; the larger set's rows stand in their bucket, the smaller
-- set's probe each that the token allows. Of 100,000 functions at 700 that joins 9.9 million rows, where two buckets of
-- the factor 1/t gave 25.6 million; finer ones cost more probes than they save.
CREATE FUNCTION jaccard_join(min_jaccard integer, min_tokens integer, low_n integer, low_id bigint, high_n integer, high_id bigint)
RETURNS TABLE (chunk_a bigint, chunk_b bigint, intersection integer, jaccard double precision)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET enable_mergejoin = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    t     CONSTANT integer := min_jaccard;
    gap   CONSTANT double precision := (1000 - t) / (1000.0 + t);
    width CONSTANT double precision := ln(1000.0 / least(t, 999)) / 3;
BEGIN
    RETURN QUERY
    WITH candidates AS MATERIALIZED (
        SELECT DISTINCT least(a.chunk_id, b.chunk_id) AS x, greatest(a.chunk_id, b.chunk_id) AS y
          FROM (SELECT s.chunk_id, s.n, s.sketch, s.rank, s.most_n, s.bucket + d.up AS bucket
                       -- in the order of ranks, here and below: the hash join meets equal ones in a row, twice as fast
                  FROM (SELECT s.chunk_id, s.n, s.sketch, p.rank, m.most_n, floor(ln(s.n::float8) / width)::integer AS bucket,
                               floor(ln(greatest(m.most_n, 1)::float8) / width)::integer AS last_bucket
                          FROM jaccard_sets s
                         CROSS JOIN LATERAL unnest(s.ranks[1 : s.n - (2 * t * s.n + 999 + t) / (1000 + t) + 1])
                                            WITH ORDINALITY AS p(rank, position)
                         CROSS JOIN LATERAL (
                               SELECT least(s.n * 1000 / t,
                                            ((s.n - p.position::integer + 1) * (1000 + t) - t * s.n) / t) AS most_n) AS m
                         WHERE s.n >= greatest((t * low_n + 999) / 1000, min_tokens)
                           AND (s.n, s.chunk_id) < (high_n, high_id)
                         ORDER BY p.rank) AS s
                  -- rounding may put n/t one bucket further: four steps, not three
                  JOIN (VALUES (0), (1), (2), (3), (4)) AS d(up) ON s.bucket + d.up <= s.last_bucket
                OFFSET 0) AS b
          JOIN (SELECT s.chunk_id, s.n, s.sketch, p.rank, floor(ln(s.n::float8) / width)::integer AS bucket,
                       ((s.n - p.position::integer + 1) * (1000 + t) - t * s.n) / t AS most_n
                  FROM jaccard_sets s
                 CROSS JOIN LATERAL unnest(s.ranks[1 : s.n - (t * s.n + 999) / 1000 + 1])
                                    WITH ORDINALITY AS p(rank, position)
                 WHERE (s.n, s.chunk_id) > (low_n, low_id) AND (s.n, s.chunk_id) <= (high_n, high_id)
                   AND s.n >= min_tokens
                 ORDER BY p.rank) AS a ON a.rank = b.rank AND a.bucket = b.bucket
         WHERE a.n <= b.most_n AND b.n <= a.most_n
           AND (b.n < a.n OR b.n = a.n AND b.chunk_id < a.chunk_id)
           AND (a.sketch <~> b.sketch) <= (a.n + b.n) * gap + 1e-6
    )
    SELECT c.x, c.y, v.common::integer, v.common / (v.total - v.common)
      FROM candidates c
     CROSS JOIN LATERAL (
           SELECT p.n + q.n AS total,
                  coalesce(-(p.members <#> q.members),
                           (SELECT count(*) FROM (SELECT unnest(p.ranks) INTERSECT SELECT unnest(q.ranks)) AS shared)) AS common
             FROM jaccard_sets p, jaccard_sets q WHERE p.chunk_id = c.x AND q.chunk_id = c.y OFFSET 0) AS v
     WHERE 1000 * v.common >= t * (v.total - v.common);
END $$;

-- All pairs of prepared sets with Jaccard ≥ min_jaccard / 1000. Sets of fewer than min_tokens are left out.
-- At 100,000 functions of 28 tokens: about 4 s at 700.
CREATE FUNCTION jaccard_pairs(min_jaccard integer, min_tokens integer DEFAULT 0)
RETURNS TABLE (chunk_a bigint, chunk_b bigint, intersection integer, jaccard double precision)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT j.chunk_a, j.chunk_b, j.intersection, j.jaccard
      FROM jaccard_slices(50000) AS s
     CROSS JOIN LATERAL jaccard_join(min_jaccard, min_tokens, s.low_n, s.low_id, s.high_n, s.high_id) AS j
$$;

-- The pairs of these chunks with any prepared set: what new chunks add. The sets must be prepared for this threshold or a
-- lower one. A few chunks are probed for one by one through the prefixes' index; for many, one pass over all prefixes is
-- cheaper: both costs grow with the sets there are, and meet at about fifty chunks.
CREATE FUNCTION jaccard_pairs_of(chunk_ids bigint[], min_jaccard integer, min_tokens integer DEFAULT 0)
RETURNS TABLE (chunk_a bigint, chunk_b bigint, intersection integer, jaccard double precision)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET enable_mergejoin = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    t     CONSTANT integer := min_jaccard;
    gap   CONSTANT double precision := (1000 - t) / (1000.0 + t);
    width CONSTANT double precision := ln(1000.0 / least(t, 999));
    few   CONSTANT boolean := cardinality(chunk_ids) < 50;
BEGIN
    IF EXISTS (SELECT FROM jaccard_sets s
                WHERE s.chunk_id = ANY (chunk_ids) AND cardinality(s.prefix) < s.n - (t * s.n + 999) / 1000 + 1) THEN
        RAISE EXCEPTION 'the sets are prepared for a higher threshold than %', t / 1000.0
              USING HINT = 'Run `pgembed pairs` with this --min-jaccard, or take a higher one.';
    END IF;
    RETURN QUERY
    WITH given AS MATERIALIZED (
        SELECT s.chunk_id, s.n, s.sketch, s.ranks[1 : s.n - (t * s.n + 999) / 1000 + 1] AS prefix
          FROM jaccard_sets s WHERE s.chunk_id = ANY (chunk_ids) AND s.n >= min_tokens
    ), wanted AS MATERIALIZED (        -- probes with its long prefix, in each bucket of sizes that it may find a partner in
        SELECT g.chunk_id, g.n, g.sketch, p.rank, (t * g.n + 999) / 1000 AS least_n, l.bucket,
               ((g.n - p.position + 1) * (1000 + t) - t * g.n) / t AS most_n
          FROM given g
         CROSS JOIN LATERAL unnest(g.prefix) WITH ORDINALITY AS p(rank, position)
         CROSS JOIN LATERAL generate_series(floor(ln(greatest((t * g.n + 999) / 1000, 1)::float8) / width)::integer,
                                            floor(ln((g.n * 1000 / t)::float8) / width)::integer) AS l(bucket)
         WHERE NOT few
    ), candidates AS MATERIALIZED (
        SELECT least(a.chunk_id, b.chunk_id) AS x, greatest(a.chunk_id, b.chunk_id) AS y
          FROM given a
         CROSS JOIN LATERAL (
               SELECT s.chunk_id FROM jaccard_sets s
                WHERE s.prefix && a.prefix
                  -- n + 0: the index on n would give half of all sets, to be joined with the few of the prefix
                  AND s.n + 0 BETWEEN greatest((t * a.n + 999) / 1000, min_tokens) AND a.n * 1000 / t
                  AND s.chunk_id <> a.chunk_id
                  AND (s.sketch <~> a.sketch) <= (s.n + a.n) * gap + 1e-6
               OFFSET 0) AS b
         WHERE few
        UNION
        SELECT least(a.chunk_id, b.chunk_id), greatest(a.chunk_id, b.chunk_id)
          FROM wanted a
               -- read as it is unnested: to store it first took as long as the join
          JOIN (SELECT s.chunk_id, s.n, s.sketch, s.bucket, unnest(s.prefix[1 : s.long]) AS rank,
                       generate_series(1, s.long) AS position
                  FROM (SELECT s.chunk_id, s.n, s.sketch, s.prefix, s.n - (t * s.n + 999) / 1000 + 1 AS long,
                               floor(ln(s.n::float8) / width)::integer AS bucket
                          FROM jaccard_sets s WHERE NOT few AND s.n >= min_tokens OFFSET 0) AS s) AS b
            ON a.rank = b.rank AND a.bucket = b.bucket
         WHERE b.n BETWEEN a.least_n AND a.most_n
           AND a.n BETWEEN (t * b.n + 999) / 1000 AND ((b.n - b.position + 1) * (1000 + t) - t * b.n) / t
           AND a.chunk_id <> b.chunk_id
           AND (a.sketch <~> b.sketch) <= (b.n + a.n) * gap + 1e-6
    )
    SELECT c.x, c.y, v.common::integer, v.common / (v.total - v.common)
      FROM candidates c
     CROSS JOIN LATERAL (
           SELECT p.n + q.n AS total,
                  coalesce(-(p.members <#> q.members),
                           (SELECT count(*) FROM (SELECT unnest(p.ranks) INTERSECT SELECT unnest(q.ranks)) AS shared)) AS common
             FROM jaccard_sets p, jaccard_sets q WHERE p.chunk_id = c.x AND q.chunk_id = c.y OFFSET 0) AS v
     WHERE 1000 * v.common >= t * (v.total - v.common);
END $$;
