-- What a run of the Jaccard join will cost, before it is started: of the join in jaccard.v03.sql.

-- The work of a full run, done and timed on a random sample of the chunks: what grows with the chunks, and what grows with
-- their square. Reads code_chunks and tokens; writes temporary tables only. Takes about two seconds at 8,000 chunks.
--
-- Every pair of chunks is in a sample of m out of N with the same probability, m(m−1) / N(N−1): the rows that the pairs of
-- the sample give, divided by it, are those of all, without bias. The order of tokens is that of all documents
-- (tokens.document_frequency), or the sample's prefixes would not be those of the run.
--
-- prefix_rows, joined, candidates, pairs: rows that jaccard_join unnests, joins on tokens, verifies, and returns.
-- half_joined, half_join_s: the join of half the sample. The two joins part the time of a row from that of a pair of rows.
-- signed, bucket_joined: sets of a quarter of the sample, and the pairs of them in buckets of bands of band_rows rows.
-- …_s: seconds of each part of the work on this server, now; verify_s is that of counting and storing.
CREATE OR REPLACE FUNCTION jaccard_estimate(min_jaccard integer, min_tokens integer, sample integer, band_rows integer, bands integer,
                                 OUT sampled bigint, OUT prefix_rows bigint, OUT joined bigint, OUT candidates bigint,
                                 OUT pairs bigint, OUT half_joined bigint, OUT signed bigint, OUT bucket_joined bigint,
                                 OUT prepare_s double precision, OUT prefix_s double precision, OUT join_s double precision,
                                 OUT half_join_s double precision, OUT verify_s double precision,
                                 OUT sign_s double precision, OUT bucket_s double precision)
LANGUAGE plpgsql SET search_path FROM CURRENT SET enable_mergejoin = off SET jit = off
SET max_parallel_workers_per_gather = 0 AS $$  -- the run's own joins cannot be parallel either
DECLARE
    t         CONSTANT integer := min_jaccard;
    gap       CONSTANT double precision := (1000 - t) / (1000.0 + t);
    width     CONSTANT double precision := ln(1000.0 / least(t, 999)) / 3;
    places    integer[];
    ranks     integer[];
    ranked    record;
    began     timestamptz;
    halved    boolean;
BEGIN
    -- the first by sha256, which is as good as drawn at random, and found by its index
    CREATE TEMPORARY TABLE sample_chunks ON COMMIT DROP AS
    SELECT c.id, c.token_ids, row_number() OVER (ORDER BY c.sha256) AS place
      FROM code_chunks c WHERE c.token_count > 0 ORDER BY c.sha256 LIMIT sample;
    ANALYZE pg_temp.sample_chunks;
    began := clock_timestamp();
    CREATE TEMPORARY TABLE sample_ranks ON COMMIT DROP AS
    SELECT d.token_id, row_number() OVER (ORDER BY t.document_frequency NULLS FIRST, d.token_id)::integer AS rank
      FROM (SELECT DISTINCT unnest(s.token_ids) AS token_id FROM pg_temp.sample_chunks s) AS d
      LEFT JOIN tokens t ON t.id = d.token_id;
    ranks := array_fill(0, ARRAY[(SELECT coalesce(max(r.token_id), 1) FROM pg_temp.sample_ranks r)]);
    FOR ranked IN SELECT r.token_id, r.rank FROM pg_temp.sample_ranks r LOOP
        ranks[ranked.token_id] := ranked.rank;
    END LOOP;
    CREATE TEMPORARY TABLE sample_sets (LIKE jaccard_sets INCLUDING INDEXES) ON COMMIT DROP;
    INSERT INTO pg_temp.sample_sets (chunk_id, n, prefix, members, sketch)
    SELECT c.id, c.n,
           ARRAY(SELECT ranks[t.id] AS place FROM (SELECT unnest(c.token_ids) AS id) AS t
                  ORDER BY place LIMIT c.n - (jaccard_estimate.min_jaccard * c.n + 999) / 1000 + 1),
           CASE WHEN c.n <= 16000 THEN ('{' || array_to_string(c.token_ids, ':1,') || ':1}/1000000000')::sparsevec END,
           (SELECT bit_xor(1::bit(256) << (t.id & 255)) FROM (SELECT unnest(c.token_ids) AS id) AS t)
      FROM (SELECT s.id, cardinality(s.token_ids) AS n, s.token_ids FROM pg_temp.sample_chunks s) AS c;
    ANALYZE pg_temp.sample_sets;
    prepare_s := extract(epoch FROM clock_timestamp() - began);
    SELECT count(*) INTO sampled FROM pg_temp.sample_sets;

    -- as jaccard_join has them
    began := clock_timestamp();
    places := ARRAY(SELECT generate_series(1, (SELECT max(s.n) FROM pg_temp.sample_sets s)));
    CREATE TEMPORARY TABLE sample_larger ON COMMIT DROP AS
    SELECT s.rank::bigint * 65536 + s.bucket AS key, s.n, least(s.n, ((s.n - s.place + 1) * (1000 + t) - t * s.n) / t) AS most_n,
           s.far, s.chunk_id, s.half, s.sketch
      FROM (SELECT unnest(s.prefix) AS rank, unnest(places[1 : cardinality(s.prefix)]) AS place,
                   floor(ln(s.n::float8) / width)::integer AS bucket, s.n, s.n * gap + 1e-6 AS far, s.chunk_id,
                   c.place % 2 = 0 AS half, s.sketch
              FROM pg_temp.sample_sets s JOIN pg_temp.sample_chunks c ON c.id = s.chunk_id
             WHERE s.n >= min_tokens) AS s
     ORDER BY s.rank;
    GET DIAGNOSTICS prefix_rows = ROW_COUNT;
    CREATE TEMPORARY TABLE sample_smaller ON COMMIT DROP AS
    SELECT s.key + d.up AS key, d.up = 0 AS own, s.n, s.most_n, s.far, s.chunk_id, s.half, s.sketch
      FROM (SELECT s.rank::bigint * 65536 + s.bucket AS key, s.n, s.most_n, s.far, s.chunk_id, s.half, s.sketch,
                   floor(ln(greatest(s.most_n, 1)::float8) / width)::integer - s.bucket AS ups
              FROM (SELECT s.*, least(s.n * 1000 / t, ((s.n - s.place + 1) * (1000 + t) - t * s.n) / t) AS most_n
                      FROM (SELECT unnest(s.prefix[1 : s.short]) AS rank, unnest(places[1 : s.short]) AS place,
                                   floor(ln(s.n::float8) / width)::integer AS bucket, s.n, s.n * gap AS far, s.chunk_id,
                                   s.half, s.sketch
                              FROM (SELECT s.*, c.place % 2 = 0 AS half,
                                           s.n - (2 * t * s.n + 999 + t) / (1000 + t) + 1 AS short
                                      FROM pg_temp.sample_sets s JOIN pg_temp.sample_chunks c ON c.id = s.chunk_id
                                     WHERE s.n >= min_tokens) AS s) AS s) AS s
             ORDER BY s.rank) AS s
      JOIN (VALUES (0), (1), (2), (3), (4)) AS d(up) ON d.up <= s.ups;
    prefix_s := extract(epoch FROM clock_timestamp() - began);
    ANALYZE pg_temp.sample_larger, pg_temp.sample_smaller;
    -- less those of a set with itself, which grow with the chunks alone
    SELECT coalesce(sum(a.rows * b.rows - b.own), 0), coalesce(sum(a.half * b.half - b.own_half), 0) INTO joined, half_joined
      FROM (SELECT l.key, count(*) AS rows, count(*) FILTER (WHERE l.half) AS half
              FROM pg_temp.sample_larger l GROUP BY l.key) AS a
      JOIN (SELECT m.key, count(*) AS rows, count(*) FILTER (WHERE m.half) AS half,
                   count(*) FILTER (WHERE m.own) AS own, count(*) FILTER (WHERE m.own AND m.half) AS own_half
              FROM pg_temp.sample_smaller m GROUP BY m.key) AS b ON b.key = a.key;
    CREATE TEMPORARY TABLE sample_candidates (x bigint, y bigint) ON COMMIT DROP;
    FOREACH halved IN ARRAY ARRAY[true, false] LOOP
        began := clock_timestamp();
        INSERT INTO pg_temp.sample_candidates
        SELECT DISTINCT least(a.chunk_id, b.chunk_id), greatest(a.chunk_id, b.chunk_id)
          FROM pg_temp.sample_larger a JOIN pg_temp.sample_smaller b ON a.key = b.key
         WHERE b.n <= a.most_n AND a.n <= b.most_n AND (b.n < a.n OR b.chunk_id < a.chunk_id)
           AND (a.sketch <~> b.sketch) <= a.far + b.far
           AND (a.half AND b.half OR NOT halved);
        GET DIAGNOSTICS candidates = ROW_COUNT;
        IF halved THEN
            half_join_s := extract(epoch FROM clock_timestamp() - began);
            TRUNCATE pg_temp.sample_candidates;
        END IF;
    END LOOP;
    join_s := extract(epoch FROM clock_timestamp() - began);
    ANALYZE pg_temp.sample_candidates;
    -- with the indexes of candidate_pairs
    CREATE TEMPORARY TABLE sample_pairs (LIKE candidate_pairs INCLUDING INDEXES) ON COMMIT DROP;
    began := clock_timestamp();
    INSERT INTO pg_temp.sample_pairs
    SELECT v.x, v.y, v.common::integer, v.common / (v.total - v.common)
      FROM (SELECT c.x, c.y, p.n + q.n AS total, -(p.members <#> q.members) AS common
              FROM pg_temp.sample_candidates c
              JOIN pg_temp.sample_sets p ON p.chunk_id = c.x JOIN pg_temp.sample_sets q ON q.chunk_id = c.y OFFSET 0) AS v
     WHERE 1000 * v.common >= t * (v.total - v.common)
     ORDER BY 1, 2;
    GET DIAGNOSTICS pairs = ROW_COUNT;
    verify_s := extract(epoch FROM clock_timestamp() - began);

    -- as jaccard_band_join has them; signatures take so long that fewer must do
    began := clock_timestamp();
    CREATE TEMPORARY TABLE sample_signatures ON COMMIT DROP AS
    SELECT m.* FROM minhash_signatures(ARRAY(SELECT c.id FROM pg_temp.sample_chunks c WHERE c.place % 4 = 0),
                                       band_rows, bands) AS m;
    GET DIAGNOSTICS signed = ROW_COUNT;
    sign_s := extract(epoch FROM clock_timestamp() - began);
    ANALYZE pg_temp.sample_signatures;
    began := clock_timestamp();
    SELECT count(*) INTO bucket_joined
      FROM (SELECT s.chunk_id, s.sketch, unnest(m.buckets) AS bucket
              FROM pg_temp.sample_signatures m JOIN pg_temp.sample_sets s ON s.chunk_id = m.chunk_id OFFSET 0) AS a
      JOIN (SELECT s.chunk_id, s.sketch, unnest(m.buckets) AS bucket
              FROM pg_temp.sample_signatures m JOIN pg_temp.sample_sets s ON s.chunk_id = m.chunk_id OFFSET 0) AS b
        ON b.bucket = a.bucket
     WHERE a.chunk_id < b.chunk_id;
    bucket_s := extract(epoch FROM clock_timestamp() - began);
    DROP TABLE pg_temp.sample_chunks, pg_temp.sample_ranks, pg_temp.sample_sets, pg_temp.sample_larger,
               pg_temp.sample_smaller, pg_temp.sample_candidates, pg_temp.sample_pairs,
               pg_temp.sample_signatures;
END $$;
