-- Undoes 0002.
DROP VIEW triplets_code, triplets_docstring, triplets;
DROP TRIGGER code_chunks_forget_token_set ON code_chunks;
DROP FUNCTION refresh_triplets(), assign_splits(), split_of(text, text), docstring_anchor(text, integer),
              mining_setting(text), jaccard_pairs_of(bigint[], integer, integer), jaccard_pairs(integer, integer),
              jaccard_join(integer, integer, integer, bigint, integer, bigint), jaccard_slices(integer),
              jaccard_prepare(integer, bigint, bigint, boolean), jaccard_rank_tokens(), forget_token_set();
DROP TABLE triplet_candidates, chunk_splits, pair_slices, pair_runs, pair_queue, jaccard_sets, jaccard_ranks,
           mining_exclusions, mining_settings;
