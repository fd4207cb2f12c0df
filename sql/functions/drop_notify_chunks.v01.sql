-- Undoes notify_chunks.v01.sql.
DROP TRIGGER code_chunks_notify ON code_chunks;
DROP FUNCTION notify_chunks();
