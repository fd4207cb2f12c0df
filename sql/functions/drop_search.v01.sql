-- Undoes search.v01.sql and what it stands on.
DROP FUNCTION search_plan(vector, integer, text, text, text, text, bigint, boolean);
DROP FUNCTION search(vector, integer, text, text, text, text, bigint, boolean);
DROP TYPE search_hit;
DROP FUNCTION nearest(vector, integer, text, text, text, text, bigint, boolean);
DROP FUNCTION search_strategy(integer, text, text, text, text, bigint, boolean);
DROP FUNCTION source_id(text);
DROP FUNCTION swap_settings(jsonb);
DROP FUNCTION path_patterns(text);
