-- Undoes 0002.
DROP VIEW triplets, triplets_code, triplets_docstring;
DROP FUNCTION refresh_triplets(), assign_splits(), mining_setting(text), jaccard_pairs_of(bigint[], integer),
              jaccard_pairs(integer), jaccard_prepare(integer);
DROP TABLE triplet_candidates, chunk_splits, pair_runs, jaccard_prefixes, jaccard_sets, jaccard_ranks, mining_settings;
