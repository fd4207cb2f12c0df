-- Approximate pairs: MinHash bands (locality-sensitive hashing), in plain SQL. For corpora that are too large for the exact
-- join.
--
-- The least of h(token) over a set, for a random h, is the same for two sets with probability J(A, B). A band is `band_rows`
-- such minima; two sets that agree in all minima of a band share a bucket. Out of `bands` bands one is shared with
-- probability 1 − (1 − J^band_rows)^bands: the S-curve. What shares a bucket is counted exactly, in the integers of
-- jaccard_join: so no pair is wrong, and its jaccard is exact; but a pair may be missing.
-- Source: Broder, "On the resemblance and containment of documents", 1997; bands and the S-curve: Leskovec, Rajaraman,
-- Ullman, "Mining of Massive Datasets", chapter 3, sections 3.3 and 3.4.
--
-- Buckets depend on the tokens' texts alone, through sha256: they are the same on every server, in every version, and for
-- every order of ids. (hashtext and hashint4 promise none of this.)

-- The probability that a pair of this Jaccard is found by `bands` bands of `band_rows` rows.
CREATE FUNCTION band_recall(jaccard double precision, band_rows integer, bands integer) RETURNS double precision
LANGUAGE sql IMMUTABLE STRICT
RETURN 1 - (1 - jaccard ^ band_rows) ^ bands;

-- A number in 1 … 2^31 − 2 for each purpose and place: the coefficients of the hash functions.
CREATE FUNCTION minhash_coefficient(purpose text, place integer) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT
RETURN ('x' || encode(substr(sha256(convert_to('pgembed.minhash.' || purpose || '.' || place, 'UTF8')), 1, 4), 'hex'))
       ::bit(32)::bigint % 2147483646 + 1;

-- A token as a number below the prime 2^31 − 1.
CREATE FUNCTION minhash_token(token text) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT
RETURN ('x' || encode(substr(sha256(convert_to(token, 'UTF8')), 1, 4), 'hex'))::bit(32)::bigint % 2147483647;

-- The buckets of these chunks, one for each band. Reads code_chunks and tokens; a chunk without tokens has none.
-- Sixteen minima are taken in one pass over a set's tokens: 25 ns for each token and hash function, where a row for each
-- of them took 140.
CREATE FUNCTION minhash_signatures(chunk_ids bigint[], band_rows integer, bands integer)
RETURNS TABLE (chunk_id bigint, buckets integer[])
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET jit = off AS $$
#variable_conflict use_column
DECLARE
    p    CONSTANT bigint := 2147483647;                -- (p − 1)·(p − 1) + p − 1 fits a bigint
    last CONSTANT integer := band_rows * bands;
BEGIN
    RETURN QUERY
    WITH members AS MATERIALIZED (
        SELECT c.id, t.token_id FROM code_chunks c, unnest(c.token_ids) AS t(token_id) WHERE c.id = ANY (chunk_ids)
    ), hashes AS MATERIALIZED (        -- once for each token, not for each place where it stands
        SELECT t.id, minhash_token(t.token) AS hash
          FROM (SELECT DISTINCT m.token_id FROM members m) AS d LEFT JOIN tokens t ON t.id = d.token_id
    ), sets AS MATERIALIZED (
        -- a token id that stands for no token would make the set a smaller one without a word: so the array has a null
        -- then, and the buckets are null
        SELECT m.id, array_agg(h.hash) AS hashes FROM members m LEFT JOIN hashes h ON h.id = m.token_id GROUP BY m.id
    ), functions AS MATERIALIZED (     -- x → (a·x + b) mod p, sixteen a row; the weights fold a band into one number
        SELECT k.block, k.weights,
               k.a[1] AS a1, k.a[2] AS a2, k.a[3] AS a3, k.a[4] AS a4, k.a[5] AS a5, k.a[6] AS a6,
               k.a[7] AS a7, k.a[8] AS a8, k.a[9] AS a9, k.a[10] AS a10, k.a[11] AS a11, k.a[12] AS a12,
               k.a[13] AS a13, k.a[14] AS a14, k.a[15] AS a15, k.a[16] AS a16,
               k.b[1] AS b1, k.b[2] AS b2, k.b[3] AS b3, k.b[4] AS b4, k.b[5] AS b5, k.b[6] AS b6,
               k.b[7] AS b7, k.b[8] AS b8, k.b[9] AS b9, k.b[10] AS b10, k.b[11] AS b11, k.b[12] AS b12,
               k.b[13] AS b13, k.b[14] AS b14, k.b[15] AS b15, k.b[16] AS b16
          FROM (SELECT (i - 1) / 16 AS block, array_agg(minhash_coefficient('a', i) ORDER BY i) AS a,
                       array_agg(minhash_coefficient('b', i) ORDER BY i) AS b,
                       array_agg(minhash_coefficient('fold', i) ORDER BY i) AS weights
                  FROM generate_series(1, (last + 15) / 16 * 16) AS i
                 GROUP BY (i - 1) / 16) AS k
    )
    SELECT s.id, g.buckets
      FROM sets s
     CROSS JOIN LATERAL (              -- set by set: one aggregation over the minima of all sets would be sorted on disk
           SELECT array_agg(d.bucket::integer ORDER BY d.band) AS buckets
             FROM (SELECT (f.block * 16 + e.place - 1) / band_rows AS band, sum((e.least * e.weight % p)::integer) % p AS bucket
                     FROM functions f
                    CROSS JOIN LATERAL (
                          SELECT ARRAY[min((f.a1 * x.hash + f.b1) % p), min((f.a2 * x.hash + f.b2) % p),
                                   min((f.a3 * x.hash + f.b3) % p), min((f.a4 * x.hash + f.b4) % p),
                                   min((f.a5 * x.hash + f.b5) % p), min((f.a6 * x.hash + f.b6) % p),
                                   min((f.a7 * x.hash + f.b7) % p), min((f.a8 * x.hash + f.b8) % p),
                                   min((f.a9 * x.hash + f.b9) % p), min((f.a10 * x.hash + f.b10) % p),
                                   min((f.a11 * x.hash + f.b11) % p), min((f.a12 * x.hash + f.b12) % p),
                                   min((f.a13 * x.hash + f.b13) % p), min((f.a14 * x.hash + f.b14) % p),
                                   min((f.a15 * x.hash + f.b15) % p), min((f.a16 * x.hash + f.b16) % p)] AS least
                            FROM (SELECT unnest(s.hashes) AS hash OFFSET 0) AS x) AS m
                    CROSS JOIN LATERAL unnest(m.least, f.weights) WITH ORDINALITY AS e(least, weight, place)
                    WHERE f.block * 16 + e.place <= last
                    GROUP BY 1) AS d
           OFFSET 0) AS g
     WHERE array_position(s.hashes, NULL) IS NULL;
END $$;

-- Make the signatures of the sets first_id … last_id that have none yet. Returns how many were made.
CREATE FUNCTION jaccard_sign(band_rows integer, bands integer, first_id bigint DEFAULT 0,
                             last_id bigint DEFAULT 9223372036854775807) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT SET jit = off AS $$
DECLARE
    wanted CONSTANT bigint[] := ARRAY(SELECT s.chunk_id FROM jaccard_sets s
                                       WHERE s.chunk_id BETWEEN first_id AND last_id
                                         AND NOT EXISTS (SELECT FROM jaccard_signatures g WHERE g.chunk_id = s.chunk_id));
    made   bigint;
BEGIN
    INSERT INTO jaccard_signatures (chunk_id, band_rows, buckets)
    SELECT m.chunk_id, jaccard_sign.band_rows, m.buckets
      FROM minhash_signatures(wanted, jaccard_sign.band_rows, bands) AS m;
    GET DIAGNOSTICS made = ROW_COUNT;
    IF made < cardinality(wanted) THEN
        RAISE EXCEPTION '% chunks from id % to % have token_ids that are not in pgembed.tokens',
                        cardinality(wanted) - made, first_id, last_id
              USING HINT = 'Run `pgembed ingest` again: it writes tokens and chunks together.';
    END IF;
    RETURN made;
END $$;

-- Find the buckets of more than `most` sets, of all or only those that a set of pair_queue is in. In these a set is
-- compared with the `most` before it only, in an order of size, signature and content: sets that are the same stand side
-- by side, so a chain of comparisons still joins them all. Rewrites crowded_buckets.
-- Returns how many there are, the size of the largest, and the comparisons that are left out: they may still be made in
-- another bucket.
CREATE FUNCTION jaccard_crowd(most integer, queued boolean DEFAULT false,
                              OUT crowded bigint, OUT largest bigint, OUT left_out bigint)
LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_mergejoin = off SET jit = off AS $$
DECLARE
    crowds integer[];
BEGIN
    DELETE FROM crowded_buckets;
    IF queued THEN
        crowds := ARRAY(SELECT e.bucket FROM (SELECT unnest(g.buckets) AS bucket FROM jaccard_signatures g OFFSET 0) AS e
                         WHERE e.bucket IN (SELECT unnest(g.buckets)
                                              FROM pair_queue q JOIN jaccard_signatures g ON g.chunk_id = q.chunk_id)
                         GROUP BY e.bucket HAVING count(*) > most);
    ELSE
        crowds := ARRAY(SELECT e.bucket FROM (SELECT unnest(g.buckets) AS bucket FROM jaccard_signatures g OFFSET 0) AS e
                         GROUP BY e.bucket HAVING count(*) > most);
    END IF;
    IF cardinality(crowds) > 0 THEN
        INSERT INTO crowded_buckets (bucket, place, chunk_id)
        SELECT m.bucket, row_number() OVER (PARTITION BY m.bucket ORDER BY s.n, g.buckets, c.sha256), m.chunk_id
          -- DISTINCT: by chance two bands of a set may fold into the same bucket
          FROM (SELECT DISTINCT g.chunk_id, k.bucket
                  FROM jaccard_signatures g CROSS JOIN LATERAL unnest(g.buckets) AS k(bucket)
                 WHERE k.bucket = ANY (crowds) OFFSET 0) AS m
          JOIN jaccard_sets s ON s.chunk_id = m.chunk_id
          JOIN jaccard_signatures g ON g.chunk_id = m.chunk_id
          JOIN code_chunks c ON c.id = m.chunk_id;
    END IF;
    ANALYZE crowded_buckets;
    SELECT count(*) FILTER (WHERE b.place = 1), coalesce(max(b.size), 0),
           -- of a full run each comparison is counted from both its sides
           coalesce(sum(b.size - 1 - least(b.place - 1, most) - least(b.size - b.place, most))
                    FILTER (WHERE NOT queued OR EXISTS (SELECT FROM pair_queue q WHERE q.chunk_id = b.chunk_id)), 0)
           / CASE WHEN queued THEN 1 ELSE 2 END
      INTO crowded, largest, left_out
      FROM (SELECT k.*, count(*) OVER (PARTITION BY k.bucket) AS size FROM crowded_buckets k) AS b;
END $$;

-- Like jaccard_join, of the pairs that share a bucket: those whose larger set lies above (low_n, low_id) and up to
-- (high_n, high_id). Needs signatures, and jaccard_crowd with the same `most`.
CREATE FUNCTION jaccard_band_join(min_jaccard integer, min_tokens integer, most integer,
                                  low_n integer, low_id bigint, high_n integer, high_id bigint)
RETURNS TABLE (chunk_a bigint, chunk_b bigint, intersection integer, jaccard double precision)
LANGUAGE plpgsql STABLE SET search_path FROM CURRENT SET enable_mergejoin = off SET jit = off AS $$
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
    ), candidates AS MATERIALIZED (
        SELECT least(a.chunk_id, b.chunk_id) AS x, greatest(a.chunk_id, b.chunk_id) AS y
          FROM larger a JOIN smaller b ON a.bucket = b.bucket
         WHERE b.n >= a.least_n AND (b.n < a.n OR b.n = a.n AND b.chunk_id < a.chunk_id)
           AND (a.sketch <~> b.sketch) <= a.allowance + b.allowance
        UNION
        SELECT least(a.chunk_id, b.chunk_id), greatest(a.chunk_id, b.chunk_id)
          FROM crowd a CROSS JOIN (VALUES (0), (1)) AS d(down)
          JOIN crowd b ON b.bucket = a.bucket AND b.block = a.block - d.down
         WHERE (a.n, a.chunk_id) > (low_n, low_id) AND (a.n, a.chunk_id) <= (high_n, high_id)
           AND b.place BETWEEN a.place - most AND a.place - 1 AND b.n >= (t * a.n + 999) / 1000
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

-- The pairs with Jaccard ≥ min_jaccard / 1000 that share a bucket: a subset of jaccard_pairs, with the same figures.
-- Needs jaccard_prepare, jaccard_sign, and jaccard_crowd with the same `most`.
CREATE FUNCTION jaccard_band_pairs(min_jaccard integer, min_tokens integer DEFAULT 0, most integer DEFAULT 1000)
RETURNS TABLE (chunk_a bigint, chunk_b bigint, intersection integer, jaccard double precision)
LANGUAGE sql STABLE SET search_path FROM CURRENT AS $$
    -- a pair of a crowded bucket may come from two slices: places there follow content, and slices follow ids
    SELECT DISTINCT j.chunk_a, j.chunk_b, j.intersection, j.jaccard
      FROM jaccard_slices(100000) AS s
     CROSS JOIN LATERAL jaccard_band_join(min_jaccard, min_tokens, most, s.low_n, s.low_id, s.high_n, s.high_id) AS j
$$;

-- The pairs of these chunks with any signed set that share a bucket: one pass over all signatures.
-- Needs jaccard_crowd with the same `most`, of all or with these chunks in pair_queue.
CREATE FUNCTION jaccard_band_pairs_of(chunk_ids bigint[], min_jaccard integer, min_tokens integer DEFAULT 0,
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
           SELECT p.n + q.n AS total,
                  coalesce(-(p.members <#> q.members),
                           (SELECT count(*) FROM (SELECT unnest(p.ranks) INTERSECT SELECT unnest(q.ranks)) AS shared)) AS common
             FROM jaccard_sets p, jaccard_sets q WHERE p.chunk_id = c.x AND q.chunk_id = c.y OFFSET 0) AS v
     WHERE 1000 * v.common >= t * (v.total - v.common);
END $$;
