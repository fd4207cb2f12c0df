-- source_id(name): the id of a source; 0, which no source has, where there is none of this name; null for null.
-- Looked up before a search is planned, so that the planner sees a constant.
CREATE FUNCTION source_id(name text) RETURNS bigint
LANGUAGE sql STABLE STRICT
SET search_path FROM CURRENT
AS $$
    SELECT coalesce((SELECT s.id FROM sources s WHERE s.name = source_id.name), 0);
$$;

COMMENT ON FUNCTION source_id(text) IS 'Id of the source of this name; 0 where there is none';
