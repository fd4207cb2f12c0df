-- Approximate pairs and the cost estimate: what `pgembed pairs` calls.

-- name: begin_approximate_run
INSERT INTO pgembed.pair_runs (mode, state, min_jaccard, min_tokens, approximate, band_rows, bands, expected_recall, copy_recall)
VALUES ('full', 'preparing', %(min_jaccard)s, %(min_tokens)s, true, %(rows)s, %(bands)s, %(expected_recall)s, %(copy_recall)s)
RETURNING id;

-- name: signature_bands
-- The bands that the signatures there are were made with.
SELECT band_rows, cardinality(buckets) FROM pgembed.jaccard_signatures LIMIT 1;

-- name: signature_ranges
-- The sets without a signature, in ranges of ids.
SELECT min(chunk_id), max(chunk_id), count(*)
  FROM (SELECT s.chunk_id, (row_number() OVER (ORDER BY s.chunk_id) - 1) / %(size)s AS part
          FROM pgembed.jaccard_sets s
         WHERE NOT EXISTS (SELECT FROM pgembed.jaccard_signatures g WHERE g.chunk_id = s.chunk_id)) AS numbered
 GROUP BY part
 ORDER BY part;

-- name: make_signatures
SELECT pgembed.jaccard_sign(%(rows)s, %(bands)s, %(first)s, %(last)s);

-- name: analyze_signatures
ANALYZE pgembed.jaccard_signatures;

-- name: find_crowded_buckets
SELECT crowded, largest, left_out FROM pgembed.jaccard_crowd(%(most)s, %(queued)s);

-- name: record_crowded_buckets
UPDATE pgembed.pair_runs SET crowded_buckets = %(crowded)s, largest_bucket = %(largest)s, left_out = %(left_out)s
 WHERE id = %(run_id)s;

-- name: band_pairs_of_slice
SELECT chunk_a, chunk_b, intersection, jaccard
  FROM pgembed.jaccard_band_join(%(thousandths)s, %(min_tokens)s, %(most)s, %(low_n)s, %(low_id)s, %(high_n)s, %(high_id)s)

-- name: band_pairs_of_chunks
SELECT chunk_a, chunk_b, intersection, jaccard
  FROM pgembed.jaccard_band_pairs_of(%(chunk_ids)s, %(thousandths)s, %(min_tokens)s, %(most)s)

-- name: recall_sample
-- Chunks at random, others for each run: the next after a point on the circle of the contents' hashes.
SELECT id
  FROM (SELECT * FROM (SELECT c.id, c.sha256, 1 AS turn FROM pgembed.code_chunks c
                        WHERE c.sha256 >= sha256(%(seed)s::text::bytea) AND c.token_count >= greatest(%(min_tokens)s, 1)
                        ORDER BY c.sha256 LIMIT %(size)s) AS after_it
        UNION ALL
        SELECT * FROM (SELECT c.id, c.sha256, 2 FROM pgembed.code_chunks c
                        WHERE c.sha256 < sha256(%(seed)s::text::bytea) AND c.token_count >= greatest(%(min_tokens)s, 1)
                        ORDER BY c.sha256 LIMIT %(size)s) AS before_it) AS both_parts
 ORDER BY turn, sha256
 LIMIT %(size)s;

-- name: probe_recall
-- The pairs that these chunks truly have, and how many of them were found.
SELECT count(*), count(p.chunk_a)
  FROM pgembed.jaccard_pairs_of(%(chunk_ids)s, %(thousandths)s, %(min_tokens)s) AS e
  LEFT JOIN pgembed.candidate_pairs p ON p.chunk_a = e.chunk_a AND p.chunk_b = e.chunk_b;

-- name: record_approximation
UPDATE pgembed.pair_runs
   SET approximate = true, band_rows = %(rows)s, bands = %(bands)s, expected_recall = %(expected_recall)s,
       copy_recall = %(copy_recall)s, measured_recall = %(measured_recall)s, recall_chunks = %(recall_chunks)s,
       recall_pairs = %(recall_pairs)s
 WHERE id = %(run_id)s;

-- name: finish_incremental_run
UPDATE pgembed.pair_runs
   SET chunks = %(chunks)s, pairs = %(pairs)s, seconds = %(seconds)s, finished_at = now()
 WHERE id = %(run_id)s;

-- name: pairs_quality
SELECT approximate, expected_recall, 1 - copy_recall AS copy_miss, measured_recall, recall_chunks, recall_pairs,
       crowded_buckets, largest_bucket, left_out AS comparisons_left_out
  FROM pgembed.pair_runs ORDER BY id DESC LIMIT 1;

-- name: estimate_pairs
SELECT (SELECT count(*) FROM pgembed.code_chunks c WHERE c.token_count > 0) AS chunks, e.*
  FROM pgembed.jaccard_estimate(%(thousandths)s, %(min_tokens)s, %(sample)s, %(rows)s, %(bands)s) AS e;
