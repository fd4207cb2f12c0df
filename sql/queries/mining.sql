-- Pairs and triplets: what the commands call.

-- name: pairs_try_lock
SELECT pg_try_advisory_lock(hashtextextended('pgembed.pairs', 0));

-- name: pairs_unlock
SELECT pg_advisory_unlock(hashtextextended('pgembed.pairs', 0));

-- name: last_pair_threshold
SELECT min_jaccard FROM pgembed.pair_runs ORDER BY id DESC LIMIT 1;

-- name: near_duplicate_setting
SELECT value FROM pgembed.mining_settings WHERE name = 'near_duplicate';

-- name: reset_pairs
TRUNCATE pgembed.candidate_pairs, pgembed.jaccard_prefixes, pgembed.jaccard_sets, pgembed.jaccard_ranks;

-- name: raise_threshold
DELETE FROM pgembed.candidate_pairs WHERE jaccard < %(min_jaccard)s;

-- name: prepare_sets
SELECT pgembed.jaccard_prepare(%(thousandths)s);

-- name: count_unpaired
SELECT count(*) FILTER (WHERE NOT paired), count(*) FROM pgembed.jaccard_sets;

-- name: pair_all
INSERT INTO pgembed.candidate_pairs (chunk_a, chunk_b, intersection, jaccard)
SELECT chunk_a, chunk_b, intersection, jaccard FROM pgembed.jaccard_pairs(%(thousandths)s)
ON CONFLICT DO NOTHING;

-- name: mark_all_paired
UPDATE pgembed.jaccard_sets SET paired = true WHERE NOT paired;

-- name: next_unpaired
SELECT chunk_id FROM pgembed.jaccard_sets WHERE NOT paired ORDER BY chunk_id LIMIT %(slice)s;

-- name: pair_slice
INSERT INTO pgembed.candidate_pairs (chunk_a, chunk_b, intersection, jaccard)
SELECT chunk_a, chunk_b, intersection, jaccard FROM pgembed.jaccard_pairs_of(%(chunk_ids)s, %(thousandths)s)
ON CONFLICT DO NOTHING;

-- name: mark_paired
UPDATE pgembed.jaccard_sets SET paired = true WHERE chunk_id = ANY(%(chunk_ids)s);

-- name: record_pair_run
INSERT INTO pgembed.pair_runs (min_jaccard, chunks, pairs, seconds)
VALUES (%(min_jaccard)s, %(chunks)s, %(pairs)s, %(seconds)s);

-- name: count_pairs
SELECT count(*) FROM pgembed.candidate_pairs;

-- name: analyze_pairs
ANALYZE pgembed.candidate_pairs;

-- name: refresh_triplets
SELECT pgembed.refresh_triplets();

-- name: triplet_sample
SELECT kind, split, language, rule, positive_jaccard, negative_jaccard, anchor, positive, negative, anchor_id,
       positive_id, negative_id
  FROM pgembed.triplets
 WHERE (%(kind)s::text IS NULL OR kind = %(kind)s)
   AND (%(split)s::text IS NULL OR split = %(split)s)
   AND (%(language)s::text IS NULL OR language = %(language)s)
 ORDER BY ordinal
 LIMIT %(limit)s;

-- name: triplet_counts
SELECT t.kind, t.split, a.language, t.rule, count(*) AS triplets, count(DISTINCT t.anchor_id) AS anchors,
       avg(t.positive_jaccard) AS positive_jaccard, avg(t.negative_jaccard) AS negative_jaccard
  FROM pgembed.triplet_candidates t
  JOIN pgembed.code_chunks a ON a.id = t.anchor_id
 GROUP BY t.kind, t.split, a.language, t.rule
 ORDER BY t.kind, t.split, triplets DESC, t.rule, a.language;

-- name: triplet_sources
-- How much each source gives to training.
SELECT s.name, count(DISTINCT t.ordinal) AS triplets
  FROM pgembed.triplet_candidates t
  JOIN pgembed.chunk_locations l ON l.chunk_id = t.anchor_id
  JOIN pgembed.sources s ON s.id = l.source_id
 WHERE t.split = 'train'
 GROUP BY s.name
 ORDER BY triplets DESC, s.name;

-- name: triplets_are_stale
-- Whether chunks have come since the triplets were made.
SELECT EXISTS (SELECT FROM pgembed.code_chunks c
                WHERE NOT EXISTS (SELECT FROM pgembed.chunk_splits p WHERE p.chunk_id = c.id));
