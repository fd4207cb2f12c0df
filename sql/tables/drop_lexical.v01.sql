-- Undoes lexical.v01.sql. Evaluations without an encoder cannot be kept.
DELETE FROM evaluations WHERE encoder_id IS NULL;
ALTER TABLE evaluations ALTER encoder_id SET NOT NULL;
DROP INDEX chunk_locations_symbol_idx;
DROP INDEX code_chunks_symbol_idx;
DROP TABLE search_settings;
DROP TABLE lexical_statistics;
ALTER TABLE tokens DROP COLUMN lexical_frequency;
DROP TABLE lexical_documents;
