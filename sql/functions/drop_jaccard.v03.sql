-- Removes the functions of jaccard.v03.sql, so that those before it can be made again.
DROP TRIGGER code_chunks_forget_token_set ON code_chunks;
DROP FUNCTION forget_token_set();
DROP FUNCTION jaccard_pairs_of(bigint[], integer, integer);
DROP FUNCTION jaccard_pairs(integer, integer);
DROP FUNCTION jaccard_join(integer, integer, integer, bigint, integer, bigint);
DROP FUNCTION jaccard_candidates(integer, integer, integer, bigint, integer, bigint);
DROP FUNCTION count_shared(bigint, bigint);
DROP FUNCTION jaccard_slices(integer);
DROP FUNCTION jaccard_prepare(integer, bigint, bigint, boolean);
DROP FUNCTION jaccard_rank_tokens();
