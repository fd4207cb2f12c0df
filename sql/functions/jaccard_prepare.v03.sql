-- Make the sets of the chunks first_id … last_id that have none yet, with prefixes for thresholds from min_jaccard on.
-- A chunk with a token that has no rank, for it came after the ranks were given, gets no set: the next run's ranks have it.
-- Reads code_chunks, jaccard_ranks; writes jaccard_sets, and pair_queue if told so. Returns the sets made.
--
-- Ranks are read from an array by token id, which is three times faster than a join; it costs a pass over jaccard_ranks,
-- so that a few chunks look theirs up one by one. 0 stands for a token without a rank, of which there are some once chunks
-- are deleted: in an array that has nulls, an element is found by walking through all before it, and the whole takes thirty
-- times as long.
CREATE OR REPLACE FUNCTION jaccard_prepare(min_jaccard integer, first_id bigint DEFAULT 0,
                                last_id bigint DEFAULT 9223372036854775807, queued boolean DEFAULT false) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT SET jit = off AS $$
DECLARE
    few    CONSTANT integer := 2000;
    bit_0  CONSTANT bit(256) := 1::bit(256);
    ids    bigint[];
    ranked integer[];  -- by token id; no array where there are few
    made   bigint;
BEGIN
    SELECT array_agg(c.id) INTO ids
      FROM code_chunks c
     WHERE c.id BETWEEN first_id AND last_id AND c.token_count > 0
       AND NOT EXISTS (SELECT FROM jaccard_sets s WHERE s.chunk_id = c.id);
    IF cardinality(ids) >= few THEN
        SELECT array_agg(coalesce(r.rank, 0) ORDER BY t.id) INTO ranked
          FROM (SELECT generate_series(1, max(r.token_id)) AS id FROM jaccard_ranks r) AS t
          LEFT JOIN jaccard_ranks r ON r.token_id = t.id;
    END IF;
    WITH sets AS MATERIALIZED (
        SELECT c.id AS chunk_id, cardinality(m.ranks) AS n, m.ranks, m.sketch
               -- held until the sets are there: a chunk that is deleted meanwhile would leave its set behind
          FROM (SELECT c.id, c.token_ids FROM code_chunks c WHERE c.id = ANY (ids) FOR KEY SHARE OF c) AS c
         CROSS JOIN LATERAL (
               SELECT array_agg(k.rank) AS ranks, bit_xor(bit_0 << (hashint4(k.rank) & 255)) AS sketch
                 FROM (SELECT coalesce(nullif(ranked[t.token_id], 0),
                                       (SELECT r.rank FROM jaccard_ranks r WHERE r.token_id = t.token_id)) AS rank
                         FROM unnest(c.token_ids) AS t(token_id)
                        ORDER BY rank) AS k) AS m
         WHERE m.ranks[cardinality(m.ranks)] IS NOT NULL  -- nulls stand last
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
