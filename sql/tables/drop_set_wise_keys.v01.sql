-- Undoes set_wise_keys.v01.sql: foreign keys row by row again.
DROP TRIGGER candidate_pairs_require_chunks ON candidate_pairs;
DROP TRIGGER code_chunks_forget_deleted ON code_chunks;
DROP TRIGGER code_chunks_forget_all ON code_chunks;
DROP FUNCTION require_paired_chunks();
DROP FUNCTION forget_deleted_chunks();
DROP FUNCTION forget_all_chunks();
DELETE FROM candidate_pairs p WHERE NOT EXISTS (SELECT FROM code_chunks c WHERE c.id = p.chunk_a)
                                 OR NOT EXISTS (SELECT FROM code_chunks c WHERE c.id = p.chunk_b);
ALTER TABLE candidate_pairs
    ADD CONSTRAINT candidate_pairs_chunk_a_fkey FOREIGN KEY (chunk_a) REFERENCES code_chunks ON DELETE CASCADE,
    ADD CONSTRAINT candidate_pairs_chunk_b_fkey FOREIGN KEY (chunk_b) REFERENCES code_chunks ON DELETE CASCADE;
DELETE FROM jaccard_sets s WHERE NOT EXISTS (SELECT FROM code_chunks c WHERE c.id = s.chunk_id);
ALTER TABLE jaccard_sets
    ADD CONSTRAINT jaccard_sets_chunk_id_fkey FOREIGN KEY (chunk_id) REFERENCES code_chunks ON DELETE CASCADE;
ALTER TABLE jaccard_ranks ADD COLUMN sketch bit(256);
UPDATE jaccard_ranks SET sketch = set_bit(repeat('0', 256)::bit(256), hashint4(rank) & 255, 1);
ALTER TABLE jaccard_ranks ALTER COLUMN sketch SET NOT NULL;
ALTER TABLE jaccard_sets ALTER ranks SET STATISTICS -1, ALTER prefix SET STATISTICS -1, ALTER members SET STATISTICS -1,
                         ALTER sketch SET STATISTICS -1;
