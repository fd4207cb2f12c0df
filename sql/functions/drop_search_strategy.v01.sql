-- Makes room for another version of search_strategy; what calls it looks it up by name.
DROP FUNCTION search_strategy(integer, text, text, text, text, bigint, boolean);
