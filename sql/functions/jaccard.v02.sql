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
-- The plan matters by orders of magnitude, so it is forced: every MATERIALIZED and OFFSET 0 is load-bearing (without them
-- the planner joined 100,000 sets for ten minutes instead of six seconds), and merge joins are off.
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
    INSERT INTO jaccard_ranks (token_id, rank, sketch)
    SELECT k.token_id, k.rank, set_bit(repeat('0', 256)::bit(256), hashint4(k.rank) & 255, 1)
      FROM (SELECT t.token_id, (lowest - row_number() OVER (ORDER BY count(*) DESC, t.token_id))::integer AS rank
              FROM code_chunks c, unnest(c.token_ids) AS t(token_id)
             WHERE NOT EXISTS (SELECT FROM jaccard_sets s WHERE s.chunk_id = c.id)
               AND NOT EXISTS (SELECT FROM jaccard_ranks r WHERE r.token_id = t.token_id)
             GROUP BY t.token_id) AS k;
    GET DIAGNOSTICS given = ROW_COUNT;
    IF given > 0 THEN
        ANALYZE jaccard_ranks;
    END IF;
    RETURN given;
END $$;

-- Make the sets of the chunks first_id … last_id that have none yet, with prefixes for thresholds from min_jaccard on.
-- Needs ranks. Reads code_chunks, jaccard_ranks; writes jaccard_sets, and pair_queue if told so. Returns the sets made.
CREATE FUNCTION jaccard_prepare(min_jaccard integer, first_id bigint DEFAULT 0,
                                last_id bigint DEFAULT 9223372036854775807, queued boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT SET jit = off AS $$
DECLARE
    made bigint;
BEGIN
    WITH sets AS MATERIALIZED (
        SELECT x.chunk_id, count(*)::integer AS n, array_agg(r.rank ORDER BY r.rank) AS ranks, bit_xor(r.sketch) AS sketch
          FROM (SELECT c.id AS chunk_id, t.token_id
                  FROM code_chunks c, unnest(c.token_ids) AS t(token_id)
                 WHERE c.id BETWEEN first_id AND last_id
                   AND NOT EXISTS (SELECT FROM jaccard_sets s WHERE s.chunk_id = c.id)) AS x
          JOIN jaccard_ranks r ON r.token_id = x.token_id
         GROUP BY x.chunk_id
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
CREATE FUNCTION jaccard_join(min_jaccard integer, min_tokens integer, low_n integer, low_id bigint, high_n integer, high_id bigint)
RETURNS TABLE (chunk_a bigint, chunk_b bigint, intersection integer, jaccard double precision)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET enable_mergejoin = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    t         CONSTANT integer := min_jaccard;
    gap       CONSTANT double precision := (1000 - t) / (1000.0 + t);
    log_width CONSTANT double precision := ln(1000.0 / least(t, 999));
BEGIN
    RETURN QUERY
    -- in the order of ranks, so that the hash join meets equal ones in a row: twice as fast
    WITH larger AS MATERIALIZED (      -- probes with its long prefix, in its own length bucket and the one below
        SELECT s.chunk_id, s.n, s.sketch, p.rank, s.n * gap + 1e-6 AS allowance, (t * s.n + 999) / 1000 AS least_n,
               ((s.n - p.position + 1) * (1000 + t) - t * s.n) / t AS most_n,
               floor(ln(s.n::float8) / log_width + 1e-9)::integer - d.down AS bucket
          FROM jaccard_sets s
         CROSS JOIN (VALUES (0), (1)) AS d(down)
         CROSS JOIN LATERAL unnest(s.ranks[1 : s.n - (t * s.n + 999) / 1000 + 1]) WITH ORDINALITY AS p(rank, position)
         WHERE (s.n, s.chunk_id) > (low_n, low_id) AND (s.n, s.chunk_id) <= (high_n, high_id) AND s.n >= min_tokens
         ORDER BY p.rank
    ), smaller AS MATERIALIZED (       -- is found by its short one
        SELECT s.chunk_id, s.n, s.sketch, p.rank, s.n * gap AS allowance,
               ((s.n - p.position + 1) * (1000 + t) - t * s.n) / t AS most_n,
               floor(ln(s.n::float8) / log_width + 1e-9)::integer AS bucket
          FROM jaccard_sets s
         CROSS JOIN LATERAL unnest(s.ranks[1 : s.n - (2 * t * s.n + 999 + t) / (1000 + t) + 1])
                            WITH ORDINALITY AS p(rank, position)
         WHERE s.n >= greatest((t * low_n + 999) / 1000, min_tokens) AND (s.n, s.chunk_id) < (high_n, high_id)
         ORDER BY p.rank
    ), candidates AS MATERIALIZED (
        SELECT DISTINCT least(a.chunk_id, b.chunk_id) AS x, greatest(a.chunk_id, b.chunk_id) AS y
          FROM larger a JOIN smaller b ON a.rank = b.rank AND a.bucket = b.bucket
         WHERE b.n >= a.least_n AND b.n <= a.most_n AND a.n <= b.most_n
           AND (b.n < a.n OR b.n = a.n AND b.chunk_id < a.chunk_id)
           AND (a.sketch <~> b.sketch) <= a.allowance + b.allowance
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
-- At 100,000 functions of 28 tokens: about 6 s at 700.
CREATE FUNCTION jaccard_pairs(min_jaccard integer, min_tokens integer DEFAULT 0)
RETURNS TABLE (chunk_a bigint, chunk_b bigint, intersection integer, jaccard double precision)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    SELECT j.chunk_a, j.chunk_b, j.intersection, j.jaccard
      FROM jaccard_slices(50000) AS s
     CROSS JOIN LATERAL jaccard_join(min_jaccard, min_tokens, s.low_n, s.low_id, s.high_n, s.high_id) AS j
$$;

-- The pairs of these chunks with any prepared set: what new chunks add. The sets must be prepared for this threshold or a
-- lower one. A few chunks are probed for one by one through the prefixes' index; for many, one pass over all prefixes is
-- cheaper: both costs grow with the sets there are, and meet at about a hundred chunks.
CREATE FUNCTION jaccard_pairs_of(chunk_ids bigint[], min_jaccard integer, min_tokens integer DEFAULT 0)
RETURNS TABLE (chunk_a bigint, chunk_b bigint, intersection integer, jaccard double precision)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET enable_mergejoin = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    t   CONSTANT integer := min_jaccard;
    gap CONSTANT double precision := (1000 - t) / (1000.0 + t);
    few CONSTANT boolean := cardinality(chunk_ids) < 100;
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
    ), wanted AS MATERIALIZED (
        SELECT g.chunk_id, g.n, g.sketch, p.rank, (t * g.n + 999) / 1000 AS least_n,
               ((g.n - p.position + 1) * (1000 + t) - t * g.n) / t AS most_n
          FROM given g CROSS JOIN LATERAL unnest(g.prefix) WITH ORDINALITY AS p(rank, position)
         WHERE NOT few
    ), others AS MATERIALIZED (
        SELECT s.chunk_id, s.n, s.sketch, p.rank, (t * s.n + 999) / 1000 AS least_n,
               ((s.n - p.position + 1) * (1000 + t) - t * s.n) / t AS most_n
          FROM jaccard_sets s
         CROSS JOIN LATERAL unnest(s.prefix[1 : s.n - (t * s.n + 999) / 1000 + 1]) WITH ORDINALITY AS p(rank, position)
         WHERE NOT few AND s.n >= min_tokens
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
          FROM wanted a JOIN others b ON a.rank = b.rank
         WHERE b.n >= a.least_n AND a.n >= b.least_n AND b.n <= a.most_n AND a.n <= b.most_n AND a.chunk_id <> b.chunk_id
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
