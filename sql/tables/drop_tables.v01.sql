-- Undoes tables.v01.sql. Detached tables of half-filled generations go too.
DO $$
DECLARE leftover regclass;
BEGIN
    FOR leftover IN
        SELECT c.oid FROM pg_class c
         WHERE c.relnamespace = 'pgembed'::regnamespace AND c.relkind = 'r' AND c.relname ~ '^code_embeddings_\d+$'
    LOOP
        EXECUTE format('DROP TABLE IF EXISTS %s', leftover);
    END LOOP;
END $$;
DROP TABLE rejected_items, evaluations, code_embeddings, active_generation, generations, training_metrics,
           training_runs, encoders, candidate_pairs, tokens, chunk_locations, code_chunks, source_files, sources;
