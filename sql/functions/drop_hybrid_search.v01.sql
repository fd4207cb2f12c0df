-- Undoes hybrid_search.v01.sql.
DROP FUNCTION hybrid_search(vector, integer, text[], text, text, text, text, text, bigint, boolean, boolean, bigint);
DROP TYPE hybrid_hit;
DROP FUNCTION copies_of(bigint, bigint[], double precision, text, text, text, text);
DROP FUNCTION first_place(bigint, text, text);
DROP FUNCTION distinct_hits(bigint[], integer, double precision, boolean, bigint);
DROP FUNCTION fused(vector, text[], text, integer, text, text, text, text, bigint, boolean);
DROP TYPE fused_hit;
DROP FUNCTION symbol_matches(text, integer, text, text, text, text);
