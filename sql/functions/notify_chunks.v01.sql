-- Whoever listens on the channel pgembed_chunks hears that chunks were added, once a statement, when it is committed.
CREATE FUNCTION notify_chunks() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
BEGIN
    NOTIFY pgembed_chunks;
    RETURN NULL;
END $$;
CREATE TRIGGER code_chunks_notify AFTER INSERT ON code_chunks FOR EACH STATEMENT EXECUTE FUNCTION notify_chunks();
