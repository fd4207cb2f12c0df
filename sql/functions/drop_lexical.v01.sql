-- Undoes lexical.v01.sql.
DROP FUNCTION lexical_plan(text[], integer, text, text, text, text);
DROP FUNCTION lexical_matches(text[], integer, text, text, text, text);
DROP FUNCTION lexical_strategy(text[], integer, text, text, text, text, boolean);
DROP FUNCTION filter_clause(text, text, text, text);
DROP FUNCTION lexical_terms(text[]);
DROP FUNCTION refresh_lexical_statistics();
DROP FUNCTION search_setting(text);
