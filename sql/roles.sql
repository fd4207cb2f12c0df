-- Two group roles with the least that each needs. `pgembed db roles` runs this as the owner of schema pgembed, again after
-- every upgrade; it can be run by psql as well. Then: GRANT pgembed_reader TO somebody;
--
-- pgembed_reader  searches, reads chunks, pairs, triplets, metrics and vectors; writes nothing.
-- pgembed_writer  reads, and does what changes rows: ingest, pairs, triplets, train, eval, a person's marks and settings.
-- owner           whoever ran `pgembed migrate`: migrate, reindex, generations (they make and drop tables and indexes).
--
-- Making the roles needs CREATEROLE. Without it an administrator makes them, and lets the owner pass them on:
--   CREATE ROLE pgembed_reader NOLOGIN; CREATE ROLE pgembed_writer NOLOGIN;
--   GRANT pgembed_reader, pgembed_writer TO owner WITH ADMIN OPTION;
-- The rest needs the owner alone.

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['pgembed_reader', 'pgembed_writer'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I NOLOGIN', wanted);
        END IF;
    END LOOP;
END $$;

REVOKE ALL ON SCHEMA pgembed FROM pgembed_reader, pgembed_writer;
GRANT USAGE ON SCHEMA pgembed TO pgembed_reader, pgembed_writer;

-- Takes back what an earlier version granted and this one does not. Tables in the schema that are another role's stay as
-- they are: that role says who reads them.
DO $$
DECLARE
    relation regclass;
    kind     "char";
BEGIN
    FOR relation, kind IN
        SELECT c.oid, c.relkind FROM pg_class c
         WHERE c.relnamespace = 'pgembed'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
           AND pg_has_role(c.relowner, 'USAGE')
    LOOP
        IF kind = 'S' THEN
            EXECUTE format('REVOKE ALL ON SEQUENCE %s FROM pgembed_reader, pgembed_writer', relation);
            EXECUTE format('GRANT USAGE ON SEQUENCE %s TO pgembed_writer', relation);
        ELSE
            EXECUTE format('REVOKE ALL ON %s FROM pgembed_reader, pgembed_writer', relation);
            EXECUTE format('GRANT SELECT ON %s TO pgembed_reader, pgembed_writer', relation);
        END IF;
    END LOOP;
END $$;
-- the tables of generations that are made later
ALTER DEFAULT PRIVILEGES IN SCHEMA pgembed GRANT SELECT ON TABLES TO pgembed_reader, pgembed_writer;

-- Functions run with the rights of who calls them, but for three triggers that do what foreign keys would; EXECUTE is
-- PUBLIC's, and the schema is the door.

-- ingest
GRANT INSERT, UPDATE, DELETE ON pgembed.sources, pgembed.source_files, pgembed.code_chunks, pgembed.chunk_locations,
                                pgembed.tokens, pgembed.lexical_documents, pgembed.lexical_statistics,
                                pgembed.rejected_items TO pgembed_writer;
-- pairs and triplets; a full run empties its own tables
GRANT INSERT, UPDATE, DELETE, TRUNCATE ON pgembed.candidate_pairs, pgembed.jaccard_ranks, pgembed.jaccard_sets,
                                          pgembed.jaccard_signatures, pgembed.crowded_buckets, pgembed.pair_queue,
                                          pgembed.pair_runs, pgembed.pair_slices, pgembed.chunk_splits,
                                          pgembed.triplet_candidates, pgembed.triplet_state TO pgembed_writer;
-- what a person may change
GRANT INSERT, UPDATE, DELETE ON pgembed.mining_exclusions, pgembed.chunk_blocks, pgembed.triplet_blocks TO pgembed_writer;
GRANT UPDATE ON pgembed.mining_settings, pgembed.search_settings TO pgembed_writer;
-- train and eval
GRANT INSERT, UPDATE, DELETE ON pgembed.encoders, pgembed.training_runs, pgembed.training_metrics,
                                pgembed.training_evaluations, pgembed.evaluations TO pgembed_writer;
-- ANALYZE after large changes; before version 17 only an owner may, and autovacuum does it later
DO $$
BEGIN
    IF current_setting('server_version_num')::integer >= 170000 THEN
        EXECUTE 'GRANT MAINTAIN ON pgembed.jaccard_ranks, pgembed.jaccard_sets, pgembed.jaccard_signatures,
                                   pgembed.candidate_pairs, pgembed.chunk_splits, pgembed.triplet_candidates,
                                   pgembed.crowded_buckets, pgembed.code_chunks, pgembed.chunk_locations, pgembed.tokens,
                                   pgembed.source_files, pgembed.lexical_documents TO pgembed_writer';
    END IF;
END $$;
