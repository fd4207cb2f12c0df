-- Undoes jaccard_hold.v01.sql for what jaccard.v03.sql does not make again.
DROP FUNCTION jaccard_hold(bigint[]);
ALTER FUNCTION jaccard_band_candidates(integer, integer, integer, integer, bigint, integer, bigint) RESET enable_hashjoin;
ALTER FUNCTION jaccard_band_join(integer, integer, integer, integer, bigint, integer, bigint) RESET enable_hashjoin;
ALTER FUNCTION jaccard_band_pairs_of(bigint[], integer, integer, integer) RESET enable_hashjoin;

-- Make the signatures of the sets first_id … last_id that have none yet. Returns how many were made.
CREATE OR REPLACE FUNCTION jaccard_sign(band_rows integer, bands integer, first_id bigint DEFAULT 0,
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
