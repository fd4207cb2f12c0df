-- The two joins of approximate_pairs.v01.sql, for sets that are stored without ranks: a set that is too large for a sparsevec
-- is counted from the chunks' tokens. And what jaccard_join gained: the sets that are counted are read once.

-- Like jaccard_candidates, of the pairs that share a bucket. Needs signatures, and jaccard_crowd with the same `most`.
CREATE FUNCTION jaccard_band_candidates(min_jaccard integer, min_tokens integer, most integer,
                                        low_n integer, low_id bigint, high_n integer, high_id bigint)
RETURNS TABLE (x bigint, y bigint)
LANGUAGE plpgsql STABLE ROWS 100000 SET search_path FROM CURRENT SET enable_mergejoin = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    t       CONSTANT integer := min_jaccard;
    gap     CONSTANT double precision := (1000 - t) / (1000.0 + t);
    crowded CONSTANT integer[] := ARRAY(SELECT DISTINCT k.bucket FROM crowded_buckets k);
BEGIN
    RETURN QUERY
    -- OFFSET 0: both sides are unnested before the join, and stream through it; MATERIALIZED would write the rows of all
    -- bands to disk once more, at twice the time
    WITH larger AS (
        SELECT s.chunk_id, s.n, s.sketch, k.bucket, s.n * gap + 1e-6 AS allowance, (t * s.n + 999) / 1000 AS least_n
          FROM jaccard_sets s JOIN jaccard_signatures g ON g.chunk_id = s.chunk_id
         CROSS JOIN LATERAL unnest(g.buckets) AS k(bucket)
         WHERE (s.n, s.chunk_id) > (low_n, low_id) AND (s.n, s.chunk_id) <= (high_n, high_id) AND s.n >= min_tokens
           AND k.bucket <> ALL (crowded) OFFSET 0
    ), smaller AS (
        SELECT s.chunk_id, s.n, s.sketch, k.bucket, s.n * gap AS allowance
          FROM jaccard_sets s JOIN jaccard_signatures g ON g.chunk_id = s.chunk_id
         CROSS JOIN LATERAL unnest(g.buckets) AS k(bucket)
         WHERE s.n >= greatest((t * low_n + 999) / 1000, min_tokens) AND (s.n, s.chunk_id) < (high_n, high_id)
           AND k.bucket <> ALL (crowded) OFFSET 0
    ), crowd AS MATERIALIZED (         -- by blocks of places, so that a hash join finds the neighbours
        SELECT s.chunk_id, s.n, s.sketch, k.bucket, k.place, k.place / most AS block
          FROM crowded_buckets k JOIN jaccard_sets s ON s.chunk_id = k.chunk_id WHERE s.n >= min_tokens
    )
    SELECT least(a.chunk_id, b.chunk_id), greatest(a.chunk_id, b.chunk_id)
      FROM larger a JOIN smaller b ON a.bucket = b.bucket
     WHERE b.n >= a.least_n AND (b.n < a.n OR b.n = a.n AND b.chunk_id < a.chunk_id)
       AND (a.sketch <~> b.sketch) <= a.allowance + b.allowance
    UNION
    SELECT least(a.chunk_id, b.chunk_id), greatest(a.chunk_id, b.chunk_id)
      FROM crowd a CROSS JOIN (VALUES (0), (1)) AS d(down)
      JOIN crowd b ON b.bucket = a.bucket AND b.block = a.block - d.down
     WHERE (a.n, a.chunk_id) > (low_n, low_id) AND (a.n, a.chunk_id) <= (high_n, high_id)
       AND b.place BETWEEN a.place - most AND a.place - 1 AND b.n >= (t * a.n + 999) / 1000
       AND (a.sketch <~> b.sketch) <= (a.n + b.n) * gap + 1e-6;
END $$;

-- Like jaccard_join: the candidates' pairs with Jaccard ≥ min_jaccard / 1000, each counted exactly.
CREATE OR REPLACE FUNCTION jaccard_band_join(min_jaccard integer, min_tokens integer, most integer,
                                             low_n integer, low_id bigint, high_n integer, high_id bigint)
RETURNS TABLE (chunk_a bigint, chunk_b bigint, intersection integer, jaccard double precision)
LANGUAGE sql STABLE SET search_path FROM CURRENT SET enable_mergejoin = off SET jit = off AS $$
    WITH candidates AS MATERIALIZED (
        SELECT c.x, c.y FROM jaccard_band_candidates(min_jaccard, min_tokens, most, low_n, low_id, high_n, high_id) AS c
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

-- The pairs of these chunks with any signed set that share a bucket: one pass over all signatures.
-- Needs jaccard_crowd with the same `most`, of all or with these chunks in pair_queue.
CREATE OR REPLACE FUNCTION jaccard_band_pairs_of(chunk_ids bigint[], min_jaccard integer, min_tokens integer DEFAULT 0,
                                      most integer DEFAULT 1000)
RETURNS TABLE (chunk_a bigint, chunk_b bigint, intersection integer, jaccard double precision)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET enable_mergejoin = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    t       CONSTANT integer := min_jaccard;
    gap     CONSTANT double precision := (1000 - t) / (1000.0 + t);
    crowded CONSTANT integer[] := ARRAY(SELECT DISTINCT k.bucket FROM crowded_buckets k);
BEGIN
    RETURN QUERY
    WITH wanted AS MATERIALIZED (
        SELECT s.chunk_id, s.n, s.sketch, k.bucket
          FROM jaccard_sets s JOIN jaccard_signatures g ON g.chunk_id = s.chunk_id
         CROSS JOIN LATERAL unnest(g.buckets) AS k(bucket)
         WHERE s.chunk_id = ANY (chunk_ids) AND s.n >= min_tokens AND k.bucket <> ALL (crowded)
    ), others AS (                     -- not materialised: all signatures stream past the few wanted buckets
        SELECT g.chunk_id, unnest(g.buckets) AS bucket FROM jaccard_signatures g OFFSET 0
    ), crowd AS MATERIALIZED (         -- by blocks of places, so that a hash join finds the neighbours
        SELECT s.chunk_id, s.n, s.sketch, k.bucket, k.place, k.place / most AS block
          FROM crowded_buckets k JOIN jaccard_sets s ON s.chunk_id = k.chunk_id WHERE s.n >= min_tokens
    ), candidates AS MATERIALIZED (
        SELECT least(a.chunk_id, b.chunk_id) AS x, greatest(a.chunk_id, b.chunk_id) AS y
          FROM wanted a JOIN others o ON o.bucket = a.bucket JOIN jaccard_sets b ON b.chunk_id = o.chunk_id
         WHERE a.chunk_id <> o.chunk_id AND b.n >= greatest((t * a.n + 999) / 1000, min_tokens)
           AND a.n >= (t * b.n + 999) / 1000
           AND (a.sketch <~> b.sketch) <= (a.n + b.n) * gap + 1e-6
        UNION
        SELECT least(a.chunk_id, b.chunk_id), greatest(a.chunk_id, b.chunk_id)
          FROM crowd a CROSS JOIN (VALUES (-1), (0), (1)) AS d(down)
          JOIN crowd b ON b.bucket = a.bucket AND b.block = a.block - d.down
         WHERE a.chunk_id = ANY (chunk_ids) AND a.chunk_id <> b.chunk_id AND b.place BETWEEN a.place - most AND a.place + most
           AND a.n >= (t * b.n + 999) / 1000 AND b.n >= (t * a.n + 999) / 1000
           AND (a.sketch <~> b.sketch) <= (a.n + b.n) * gap + 1e-6
    )
    SELECT c.x, c.y, v.common::integer, v.common / (v.total - v.common)
      FROM candidates c
     CROSS JOIN LATERAL (
           SELECT p.n + q.n AS total, coalesce(-(p.members <#> q.members), count_shared(c.x, c.y)) AS common
             FROM jaccard_sets p, jaccard_sets q WHERE p.chunk_id = c.x AND q.chunk_id = c.y OFFSET 0) AS v
     WHERE 1000 * v.common >= t * (v.total - v.common);
END $$;
