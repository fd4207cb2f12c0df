-- Undoes 0002.
DROP VIEW triplets_code, triplets_docstring, triplets, chunk_eligibility;
DROP TRIGGER code_chunks_forget_token_set ON code_chunks;
DROP TRIGGER mining_settings_check ON mining_settings;
DROP TRIGGER mining_settings_check_truncate ON mining_settings;
DROP FUNCTION explain_triplet(bigint), why_no_triplets(bigint), shared_tokens(bigint, bigint), split_reason(bigint),
              chunk_place(bigint), block_triplet(bigint, text), block_chunk(bigint, text), stale_inputs(boolean),
              triplet_inputs(boolean), refresh_triplets(), check_mining_settings(), check_mining_setting(), assign_splits(),
              split_of(text, text), split_hash(text, text), docstring_anchor(text, integer),
              mining_setting(text), jaccard_pairs_of(bigint[], integer, integer), jaccard_pairs(integer, integer),
              jaccard_join(integer, integer, integer, bigint, integer, bigint), jaccard_slices(integer),
              jaccard_prepare(integer, bigint, bigint, boolean), jaccard_rank_tokens(), forget_token_set();
DROP TABLE triplet_state, triplet_candidates, chunk_splits, pair_slices, pair_runs, pair_queue, jaccard_sets, jaccard_ranks,
           triplet_blocks, chunk_blocks, mining_exclusions, mining_settings;
