-- Exact Jaccard over the chunks' token sets, in plain SQL with pgvector.
--
-- J(A, B) = |A ∩ B| / |A ∪ B|. Two sets with J ≥ t share a token among the first n − ⌈t·n⌉ + 1 of each in any fixed order
-- (prefix filter), have sizes within a factor t (length filter), and differ in at most (1−t)/(1+t)·(|A|+|B|) tokens,
-- which a 256-bit xor sketch bounds from below (sketch filter). What passes is counted exactly. Empty sets pair with none.
-- Thresholds are integers in thousandths, so that nothing is rounded at the boundary.
--
-- The plan matters by orders of magnitude: MATERIALIZED and OFFSET 0 are fences against joins on the token alone, and
-- merge joins, which would sort what hashing does not, are off.
-- Source of the prefix filter: Bayardo, Ma, Srikant, "Scaling up all pairs similarity search", WWW 2007; of the shorter
-- prefix of the smaller set: Xiao et al., "Efficient similarity joins for near duplicate detection", WWW 2008.

-- Prepare the sets of chunks that have none yet, with prefixes for thresholds from min_jaccard on.
-- Reads code_chunks; writes jaccard_ranks, jaccard_sets, jaccard_prefixes, rejected_items. Returns the sets made.
-- Tokens not seen before get ranks below all others (they are the rarest), so that sets made earlier never change.
CREATE FUNCTION jaccard_prepare(min_jaccard integer) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT SET jit = off AS $$
DECLARE
    lowest integer;
    made   bigint;
BEGIN
    CREATE TEMPORARY TABLE IF NOT EXISTS jaccard_new (chunk_id bigint, token_id integer) ON COMMIT DROP;
    TRUNCATE pg_temp.jaccard_new;
    -- sparsevec holds 16,000 non-zero elements; what is larger is told, not dropped in silence
    INSERT INTO rejected_items (stage, chunk_id, reason, detail)
    SELECT 'pairs', c.id, 'too_many_tokens', format('%s distinct tokens; the join takes 16,000', c.token_count)
      FROM code_chunks c WHERE c.token_count > 16000
    ON CONFLICT DO NOTHING;
    INSERT INTO pg_temp.jaccard_new
    SELECT c.id, t.token_id
      FROM code_chunks c, unnest(c.token_ids) AS t(token_id)
     WHERE c.token_count BETWEEN 1 AND 16000
       AND NOT EXISTS (SELECT FROM jaccard_sets s WHERE s.chunk_id = c.id);
    ANALYZE pg_temp.jaccard_new;
    SELECT coalesce(min(r.rank), 900000001) INTO lowest FROM jaccard_ranks r;
    INSERT INTO jaccard_ranks (token_id, rank)
    SELECT n.token_id, lowest - row_number() OVER (ORDER BY count(*) DESC, n.token_id)
      FROM pg_temp.jaccard_new n
     WHERE NOT EXISTS (SELECT FROM jaccard_ranks r WHERE r.token_id = n.token_id)
     GROUP BY n.token_id;
    ANALYZE jaccard_ranks;
    WITH sets AS MATERIALIZED (
        SELECT x.chunk_id, count(*)::integer AS n, array_agg(r.rank ORDER BY r.rank) AS ranks,
               bit_xor(set_bit(repeat('0', 256)::bit(256), hashint4(r.rank) & 255, 1)) AS sketch
          FROM pg_temp.jaccard_new x JOIN jaccard_ranks r ON r.token_id = x.token_id
         GROUP BY x.chunk_id
    ), stored AS (
        INSERT INTO jaccard_sets (chunk_id, n, ranks, members, sketch)
        SELECT s.chunk_id, s.n, s.ranks,
               ('{' || array_to_string(s.ranks, ':1,') || ':1}/1000000000')::sparsevec, s.sketch
          FROM sets s
        RETURNING chunk_id
    )
    INSERT INTO jaccard_prefixes (rank, n, chunk_id, position, sketch)
    SELECT p.rank, s.n, s.chunk_id, p.position, s.sketch
      FROM sets s
     CROSS JOIN LATERAL unnest(s.ranks[1 : s.n - (min_jaccard * s.n + 999) / 1000 + 1])
                        WITH ORDINALITY AS p(rank, position)
     ORDER BY p.rank, s.n;
    SELECT count(DISTINCT x.chunk_id) INTO made FROM pg_temp.jaccard_new x;
    ANALYZE jaccard_sets, jaccard_prefixes;
    RETURN made;
END $$;

-- All pairs of prepared sets with Jaccard ≥ min_jaccard / 1000; the sets must be prepared for that threshold or lower.
CREATE FUNCTION jaccard_pairs(min_jaccard integer)
RETURNS TABLE (chunk_a bigint, chunk_b bigint, intersection integer, jaccard double precision)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET enable_mergejoin = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    t         CONSTANT integer := min_jaccard;
    gap       CONSTANT double precision := (1000 - t) / (1000.0 + t);
    log_width CONSTANT double precision := ln(1000.0 / t);
BEGIN
    RETURN QUERY
    WITH larger AS MATERIALIZED (      -- probes with its long prefix, in its own length bucket and the one below
        SELECT p.rank, p.chunk_id, p.sketch, p.n, p.n * gap AS allowance, (t * p.n + 999) / 1000 AS least,
               floor(ln(p.n::float8) / log_width + 1e-9)::integer - down AS bucket
          FROM jaccard_prefixes p CROSS JOIN (VALUES (0), (1)) AS d(down)
         WHERE p.position <= p.n - (t * p.n + 999) / 1000 + 1
    ), smaller AS MATERIALIZED (       -- is found by its short one
        SELECT p.rank, p.chunk_id, p.sketch, p.n, p.n * gap AS allowance,
               floor(ln(p.n::float8) / log_width + 1e-9)::integer AS bucket
          FROM jaccard_prefixes p
         WHERE p.position <= p.n - (2 * t * p.n + 999 + t) / (1000 + t) + 1
    ), candidates AS MATERIALIZED (
        SELECT DISTINCT least(a.chunk_id, b.chunk_id) AS x, greatest(a.chunk_id, b.chunk_id) AS y
          FROM larger a JOIN smaller b ON a.rank = b.rank AND a.bucket = b.bucket
         WHERE b.n >= a.least AND (b.n, b.chunk_id) < (a.n, a.chunk_id)
           AND (a.sketch <~> b.sketch) <= a.allowance + b.allowance + 1e-6
    )
    SELECT c.x, c.y, i.k::integer, i.k / (p.n + q.n - i.k)
      FROM candidates c
      JOIN jaccard_sets p ON p.chunk_id = c.x
      JOIN jaccard_sets q ON q.chunk_id = c.y
     CROSS JOIN LATERAL (SELECT -(p.members <#> q.members) AS k) AS i
     WHERE 1000 * i.k >= t * (p.n + q.n - i.k);
END $$;

-- The pairs of these chunks with any prepared set: what new chunks add. Cost follows the number of chunks given.
CREATE FUNCTION jaccard_pairs_of(chunk_ids bigint[], min_jaccard integer)
RETURNS TABLE (chunk_a bigint, chunk_b bigint, intersection integer, jaccard double precision)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT
SET enable_mergejoin = off SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    t   CONSTANT integer := min_jaccard;
    gap CONSTANT double precision := (1000 - t) / (1000.0 + t);
BEGIN
    RETURN QUERY
    WITH given AS MATERIALIZED (
        SELECT s.* FROM jaccard_sets s WHERE s.chunk_id = ANY (chunk_ids)
    ), candidates AS MATERIALIZED (
        SELECT DISTINCT least(s.chunk_id, b.chunk_id) AS x, greatest(s.chunk_id, b.chunk_id) AS y
          FROM given s
         CROSS JOIN LATERAL unnest(s.ranks[1 : s.n - (t * s.n + 999) / 1000 + 1]) AS u(rank)
         CROSS JOIN LATERAL (
               SELECT p.chunk_id, p.n, p.sketch FROM jaccard_prefixes p
                WHERE p.rank = u.rank AND p.n >= (t * s.n + 999) / 1000 AND p.n <= s.n * 1000 / t
                  AND p.position <= p.n - (t * p.n + 999) / 1000 + 1 AND p.chunk_id <> s.chunk_id
                  AND (p.sketch <~> s.sketch) <= (p.n + s.n) * gap + 1e-6
               OFFSET 0) AS b
    )
    SELECT c.x, c.y, i.k::integer, i.k / (p.n + q.n - i.k)
      FROM candidates c
      JOIN jaccard_sets p ON p.chunk_id = c.x
      JOIN jaccard_sets q ON q.chunk_id = c.y
     CROSS JOIN LATERAL (SELECT -(p.members <#> q.members) AS k) AS i
     WHERE 1000 * i.k >= t * (p.n + q.n - i.k);
END $$;
