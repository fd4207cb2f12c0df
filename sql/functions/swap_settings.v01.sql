-- swap_settings(wanted): set each of {"name": "value"} until the transaction ends; return the values before.
--
-- Calling it again with what it returned undoes it. Where an error comes in between, the rollback undoes it.
-- Why not SET clauses on the functions that need it: the extension's own settings (ivfflat.probes) are unknown to the
-- server until the extension is loaded, and then only a superuser may attach them to a function; a dump of the schema
-- could not be restored by its owner.
CREATE FUNCTION swap_settings(wanted jsonb) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
SET search_path FROM CURRENT
AS $$
DECLARE
    before  jsonb := '{}';
    setting record;
BEGIN
    FOR setting IN SELECT key, value FROM jsonb_each_text(wanted) LOOP
        before := before || jsonb_build_object(setting.key, current_setting(setting.key, true));
        PERFORM set_config(setting.key, setting.value, true);
    END LOOP;
    RETURN before;
END;
$$;

COMMENT ON FUNCTION swap_settings(jsonb) IS 'Set settings until the end of the transaction and return the values before';
