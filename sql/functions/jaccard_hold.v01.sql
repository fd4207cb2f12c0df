-- What others do to chunks while pairs are found: chunks and sets are held from the join to the commit, so that nobody's
-- deletion or change leaves a pair or a set behind, and none costs the work of a slice.

-- Of these chunks the ones that still have a set; until the transaction ends none of them is deleted, nor its tokens changed.
-- Called when pairs have been found and before they are stored, for the join saw the sets as they were when it began. Chunks
-- are locked before sets, as who deletes one does.
CREATE FUNCTION jaccard_hold(chunk_ids bigint[]) RETURNS SETOF bigint
LANGUAGE plpgsql SET search_path FROM CURRENT SET jit = off AS $$
DECLARE
    there CONSTANT bigint[] := ARRAY(SELECT c.id FROM code_chunks c WHERE c.id = ANY (chunk_ids) FOR KEY SHARE OF c);
BEGIN
    RETURN QUERY SELECT s.chunk_id FROM jaccard_sets s WHERE s.chunk_id = ANY (there) FOR KEY SHARE OF s;
END $$;

-- Make the sets of the chunks first_id … last_id that have none yet, with prefixes for thresholds from min_jaccard on.
-- Reads code_chunks, jaccard_ranks; writes jaccard_sets, and pair_queue if told so. Returns the sets made.
CREATE OR REPLACE FUNCTION jaccard_prepare(min_jaccard integer, first_id bigint DEFAULT 0,
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
           -- held until the sets are there: of a chunk that is deleted or changed meanwhile a set, or its old one, would stay
      FROM (SELECT c.id, cardinality(c.token_ids) AS n, c.token_ids
              FROM code_chunks c WHERE c.id = ANY (ids) AND c.token_count > 0 FOR SHARE OF c) AS c;
    GET DIAGNOSTICS made = ROW_COUNT;
    IF queued THEN
        INSERT INTO pair_queue (chunk_id) SELECT s.chunk_id FROM jaccard_sets s WHERE s.chunk_id = ANY (ids);
    END IF;
    RETURN made;
END $$;

-- A chunk whose tokens are changed in place has neither set nor pairs until the next run. The set goes first: that waits for
-- whoever is storing pairs of it (jaccard_hold), and these are then seen, and go too.
CREATE OR REPLACE FUNCTION forget_token_set() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM jaccard_sets s WHERE s.chunk_id = NEW.id;
    DELETE FROM candidate_pairs p WHERE p.chunk_a = NEW.id OR p.chunk_b = NEW.id;
    RETURN NULL;
END $$;

-- Make the signatures of the sets first_id … last_id that have none yet. Returns how many were made. A set that goes
-- meanwhile is left out.
CREATE OR REPLACE FUNCTION jaccard_sign(band_rows integer, bands integer, first_id bigint DEFAULT 0,
                                        last_id bigint DEFAULT 9223372036854775807) RETURNS bigint
LANGUAGE plpgsql SET search_path FROM CURRENT SET jit = off AS $$
DECLARE
    wanted CONSTANT bigint[] := ARRAY(SELECT s.chunk_id FROM jaccard_sets s
                                       WHERE s.chunk_id BETWEEN first_id AND last_id
                                         AND NOT EXISTS (SELECT FROM jaccard_signatures g WHERE g.chunk_id = s.chunk_id));
    held   CONSTANT bigint[] := ARRAY(SELECT h.chunk_id FROM jaccard_hold(wanted) AS h(chunk_id));
    made   bigint;
BEGIN
    INSERT INTO jaccard_signatures (chunk_id, band_rows, buckets)
    SELECT m.chunk_id, jaccard_sign.band_rows, m.buckets
      FROM minhash_signatures(held, jaccard_sign.band_rows, bands) AS m;
    GET DIAGNOSTICS made = ROW_COUNT;
    IF made < cardinality(held) THEN
        RAISE EXCEPTION '% chunks from id % to % have token_ids that are not in pgembed.tokens',
                        cardinality(held) - made, first_id, last_id
              USING HINT = 'Run `pgembed ingest` again: it writes tokens and chunks together.';
    END IF;
    RETURN made;
END $$;

-- Merge joins are off in these, so hash joins are on, whatever the role or the database says: without both 1,000 sets took
-- half a minute.
ALTER FUNCTION jaccard_candidates(integer, integer, integer, bigint, integer, bigint) SET enable_hashjoin = on;
ALTER FUNCTION jaccard_join(integer, integer, integer, bigint, integer, bigint) SET enable_hashjoin = on;
ALTER FUNCTION jaccard_pairs_of(bigint[], integer, integer) SET enable_hashjoin = on;
ALTER FUNCTION jaccard_band_candidates(integer, integer, integer, integer, bigint, integer, bigint) SET enable_hashjoin = on;
ALTER FUNCTION jaccard_band_join(integer, integer, integer, integer, bigint, integer, bigint) SET enable_hashjoin = on;
ALTER FUNCTION jaccard_band_pairs_of(bigint[], integer, integer, integer) SET enable_hashjoin = on;
