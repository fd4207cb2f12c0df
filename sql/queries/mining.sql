-- Pairs and triplets: what the commands call.

-- name: pairs_try_lock
SELECT pg_try_advisory_lock(hashtextextended('pgembed.pairs', 0));

-- name: pairs_unlock
SELECT pg_advisory_unlock(hashtextextended('pgembed.pairs', 0));

-- name: pair_settings
SELECT pgembed.mining_setting('near_duplicate'), pgembed.mining_setting('pairs_min_tokens')::integer;

-- name: last_pair_run
SELECT id, state, round(min_jaccard * 1000)::integer, min_tokens, approximate
  FROM pgembed.pair_runs ORDER BY id DESC LIMIT 1;

-- name: pairs_to_do
-- Chunks without a set, the first and the last of them, sets there are, sets when everything was last compared, sets in the
-- queue, and sets whose chunk is gone. Only ids are compared, which the keys hold; whether there are tokens is asked of what
-- is left.
WITH alone AS MATERIALIZED (
    SELECT c.id, s.chunk_id
      FROM pgembed.code_chunks c FULL JOIN pgembed.jaccard_sets s ON s.chunk_id = c.id
     WHERE c.id IS NULL OR s.chunk_id IS NULL
)
SELECT n.chunks, n.first_id, n.last_id,
       (SELECT count(*) FROM pgembed.jaccard_sets),
       coalesce((SELECT sets FROM pgembed.pair_runs WHERE mode = 'full' ORDER BY id DESC LIMIT 1), 0),
       (SELECT count(*) FROM pgembed.pair_queue),
       (SELECT count(*) FROM alone WHERE id IS NULL)
  FROM (SELECT count(*) AS chunks, coalesce(min(c.id), 0) AS first_id, coalesce(max(c.id), 0) AS last_id
          FROM alone a JOIN pgembed.code_chunks c ON c.id = a.id WHERE c.token_count > 0) AS n;

-- name: forget_lost_pairs
-- Of chunks that somebody deleted at REPEATABLE READ, who did not see what was made of them meanwhile.
DELETE FROM pgembed.candidate_pairs p
 WHERE p.chunk_a IN (SELECT s.chunk_id FROM pgembed.jaccard_sets s
                      WHERE NOT EXISTS (SELECT FROM pgembed.code_chunks c WHERE c.id = s.chunk_id))
    OR p.chunk_b IN (SELECT s.chunk_id FROM pgembed.jaccard_sets s
                      WHERE NOT EXISTS (SELECT FROM pgembed.code_chunks c WHERE c.id = s.chunk_id));

-- name: forget_lost_sets
DELETE FROM pgembed.jaccard_sets s WHERE NOT EXISTS (SELECT FROM pgembed.code_chunks c WHERE c.id = s.chunk_id);

-- name: wait_briefly_for_locks
-- Who waits for a table as a whole keeps everybody else from it.
SET LOCAL lock_timeout = '2s';

-- name: who_uses_pairs
-- Transactions that have read or written pairs and are not over.
SELECT a.pid, a.application_name, coalesce(a.client_addr::text, 'this host'), round(extract(epoch FROM now() - a.xact_start))
  FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE l.relation = 'pgembed.candidate_pairs'::regclass AND l.granted AND l.pid <> pg_backend_pid()
 ORDER BY a.xact_start
 LIMIT 1;

-- name: reset_pairs
TRUNCATE pgembed.candidate_pairs, pgembed.pair_queue, pgembed.jaccard_sets, pgembed.jaccard_ranks,
         pgembed.jaccard_signatures, pgembed.crowded_buckets;

-- name: begin_full_run
INSERT INTO pgembed.pair_runs (mode, state, min_jaccard, min_tokens)
VALUES ('full', 'preparing', %(min_jaccard)s, %(min_tokens)s)
RETURNING id;

-- name: raise_threshold
DELETE FROM pgembed.candidate_pairs WHERE jaccard < %(min_jaccard)s;

-- name: rank_tokens
SELECT pgembed.jaccard_rank_tokens();

-- name: chunk_ranges
-- The chunks without a set, in ranges of ids.
SELECT coalesce(lag(e.id) OVER o + 1, 0), e.id, e.place - coalesce(lag(e.place) OVER o, 0)
  FROM (SELECT c.id, row_number() OVER o AS place, lead(c.id) OVER o AS next_id
          FROM pgembed.code_chunks c
         WHERE NOT EXISTS (SELECT FROM pgembed.jaccard_sets s WHERE s.chunk_id = c.id)
        WINDOW o AS (ORDER BY c.id)) AS e
 WHERE e.place %% %(size)s = 0 OR e.next_id IS NULL
WINDOW o AS (ORDER BY e.id);

-- name: prepare_sets
SELECT pgembed.jaccard_prepare(%(thousandths)s, %(first)s, %(last)s, %(queued)s);

-- name: count_sets
SELECT count(*) FROM pgembed.jaccard_sets;

-- name: plan_slices
WITH planned AS (
    INSERT INTO pgembed.pair_slices (run_id, ordinal, low_n, low_id, high_n, high_id, sets)
    SELECT %(run_id)s, s.* FROM pgembed.jaccard_slices(%(size)s) AS s
)
UPDATE pgembed.pair_runs SET state = 'joining' WHERE id = %(run_id)s;

-- name: open_slices
-- Large sets first: theirs take longest, which balances the workers.
SELECT ordinal, sets FROM pgembed.pair_slices WHERE run_id = %(run_id)s AND pairs IS NULL ORDER BY ordinal DESC;

-- name: lock_slice
SELECT low_n, low_id, high_n, high_id FROM pgembed.pair_slices
 WHERE run_id = %(run_id)s AND ordinal = %(ordinal)s AND pairs IS NULL
   FOR UPDATE;

-- name: pairs_of_slice
SELECT chunk_a, chunk_b, intersection, jaccard
  FROM pgembed.jaccard_join(%(thousandths)s, %(min_tokens)s, %(low_n)s, %(low_id)s, %(high_n)s, %(high_id)s)

-- name: store_pairs
-- The pairs that a query finds, without those of chunks that went meanwhile. In an order: pairs of new chunks may be found
-- from both sides at once, and two that wait for each other's rows deadlock; and in that of the key they cost least.
WITH found AS MATERIALIZED (
    {found}
), held AS MATERIALIZED (
    SELECT h.chunk_id
      FROM pgembed.jaccard_hold(ARRAY(SELECT f.chunk_a FROM found f UNION SELECT f.chunk_b FROM found f)) AS h(chunk_id)
)
INSERT INTO pgembed.candidate_pairs (chunk_a, chunk_b, intersection, jaccard)
SELECT f.chunk_a, f.chunk_b, f.intersection, f.jaccard
  FROM found f
 WHERE f.chunk_a IN (SELECT h.chunk_id FROM held h) AND f.chunk_b IN (SELECT h.chunk_id FROM held h)
 ORDER BY f.chunk_a, f.chunk_b
{conflict};

-- name: close_slice
UPDATE pgembed.pair_slices SET pairs = %(pairs)s WHERE run_id = %(run_id)s AND ordinal = %(ordinal)s;

-- name: finish_full_run
UPDATE pgembed.pair_runs r
   SET state = 'finished', finished_at = now(), seconds = %(seconds)s, chunks = s.sets, sets = s.sets, pairs = s.pairs
  FROM (SELECT coalesce(sum(sets), 0) AS sets, coalesce(sum(pairs), 0) AS pairs
          FROM pgembed.pair_slices WHERE run_id = %(run_id)s) AS s
 WHERE r.id = %(run_id)s
RETURNING r.chunks, r.pairs;

-- name: queued_chunks
SELECT chunk_id FROM pgembed.pair_queue ORDER BY chunk_id;

-- name: pairs_of_chunks
SELECT chunk_a, chunk_b, intersection, jaccard
  FROM pgembed.jaccard_pairs_of(%(chunk_ids)s, %(thousandths)s, %(min_tokens)s)

-- name: leave_queue
DELETE FROM pgembed.pair_queue WHERE chunk_id = ANY(%(chunk_ids)s);

-- name: record_pair_run
INSERT INTO pgembed.pair_runs (mode, state, min_jaccard, min_tokens, chunks, sets, pairs, seconds, finished_at)
SELECT %(mode)s, 'finished', %(min_jaccard)s, %(min_tokens)s, %(chunks)s, count(*), %(pairs)s, %(seconds)s, now()
  FROM pgembed.jaccard_sets
RETURNING id;

-- name: count_pairs
SELECT count(*) FROM pgembed.candidate_pairs;

-- name: analyze_sets
ANALYZE pgembed.jaccard_sets;

-- name: analyze_pairs
ANALYZE pgembed.candidate_pairs;

-- name: held_out_paths
-- Of these paths of a source, the ones whose code is kept for measuring.
SELECT path FROM unnest(%(paths)s::text[]) AS path WHERE pgembed.split_of(%(source)s, path) = 'test';

-- name: held_out_anchors
-- Descriptions of held-out functions of one source, each once, in the order of the triplets.
SELECT t.anchor
  FROM pgembed.triplets t
 WHERE t.kind = 'docstring' AND t.split = 'test'
   AND EXISTS (SELECT FROM pgembed.chunk_locations l JOIN pgembed.sources s ON s.id = l.source_id
                WHERE l.chunk_id = t.anchor_id AND s.name = %(source)s)
 GROUP BY t.anchor
 ORDER BY min(t.ordinal)
 LIMIT %(limit)s;

-- name: refresh_triplets
SELECT pgembed.refresh_triplets();

-- name: use_vectors
UPDATE pgembed.mining_settings SET value = %(value)s WHERE name = 'use_vectors';

-- name: refresh_report
SELECT report FROM pgembed.triplet_state;

-- name: stale_inputs
SELECT * FROM pgembed.stale_inputs();

-- name: triplet_sample
SELECT ordinal, kind, split, language, rule, positive_jaccard, negative_jaccard, anchor, positive, negative, anchor_id,
       positive_id, negative_id, generation_id, positive_score, negative_score
  FROM pgembed.triplets
 WHERE (%(kind)s::text IS NULL OR kind = %(kind)s)
   AND (%(split)s::text IS NULL OR split = %(split)s)
   AND (%(language)s::text IS NULL OR language = %(language)s)
 ORDER BY ordinal
 LIMIT %(limit)s;

-- name: triplet_counts
SELECT kind, split, language, rule, count(*) AS triplets, count(DISTINCT anchor_id) AS anchors,
       avg(positive_jaccard) AS positive_jaccard, avg(negative_jaccard) AS negative_jaccard
  FROM pgembed.triplets
 GROUP BY kind, split, language, rule
 ORDER BY kind, split, triplets DESC, rule, language;

-- name: triplet_sources
-- How much each source gives to training.
SELECT s.name, count(DISTINCT t.ordinal) AS triplets
  FROM pgembed.triplets t
  JOIN pgembed.chunk_locations l ON l.chunk_id = t.anchor_id
  JOIN pgembed.sources s ON s.id = l.source_id
 WHERE t.split = 'train'
 GROUP BY s.name
 ORDER BY triplets DESC, s.name
 LIMIT 2;

-- name: triplet_files
-- The file that gives most to training, what it gives, and how many files there are. Code in many files counts in each.
SELECT s.name || '/' || f.path, f.triplets, f.files
  FROM (SELECT l.source_id, l.path, count(DISTINCT t.ordinal) AS triplets, count(*) OVER () AS files
          FROM pgembed.triplets t
          JOIN pgembed.chunk_locations l ON l.chunk_id = t.anchor_id
         WHERE t.split = 'train'
         GROUP BY l.source_id, l.path) AS f
  JOIN pgembed.sources s ON s.id = f.source_id
 ORDER BY f.triplets DESC, s.name, f.path
 LIMIT 1;

-- name: triplet_anchors
-- Docstrings that several functions carry: triplets whose anchor's text has more than so many functions, all docstring
-- triplets, and the text that most functions have.
SELECT coalesce(sum(a.triplets) FILTER (WHERE a.functions > %(functions)s), 0)::bigint, coalesce(sum(a.triplets), 0)::bigint,
       (array_agg(a.anchor ORDER BY a.functions DESC, a.anchor))[1]
  FROM (SELECT anchor, count(*) AS triplets, count(DISTINCT anchor_id) AS functions
          FROM pgembed.triplets
         WHERE kind = 'docstring' AND split = 'train'
         GROUP BY anchor) AS a;

-- name: triplet_copies
-- Code triplets to train on, those of them whose positive is nearly a near-duplicate, and where that begins.
SELECT count(t.ordinal), count(t.ordinal) FILTER (WHERE t.positive_jaccard >= s.value - %(below)s), s.value
  FROM pgembed.mining_settings s
  LEFT JOIN pgembed.triplets t ON t.kind = 'code' AND t.split = 'train'
 WHERE s.name = 'near_duplicate'
 GROUP BY s.value;
