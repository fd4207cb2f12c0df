-- What `pgembed serve` asks beside what the commands do.

-- name: serving_timeout
-- No request is worth a minute of the server; where somebody has set a limit, theirs holds.
SELECT set_config('statement_timeout', '60s', true) WHERE current_setting('statement_timeout') = '0';

-- name: serving_chunk
SELECT c.id AS chunk_id, c.language, c.kind, c.symbol, c.content, c.docstring, c.token_count, c.line_count,
       (SELECT count(*) FROM pgembed.chunk_locations l WHERE l.chunk_id = c.id) AS locations
  FROM pgembed.code_chunks c
 WHERE c.id = %(chunk_id)s;

-- name: serving_places
SELECT s.name AS source, l.path, l.start_line, l.end_line, coalesce(nullif(l.symbol, ''), c.symbol) AS symbol
  FROM pgembed.chunk_locations l
  JOIN pgembed.sources s ON s.id = l.source_id
  JOIN pgembed.code_chunks c ON c.id = l.chunk_id
 WHERE l.chunk_id = %(chunk_id)s
 ORDER BY s.name, l.path, l.start_line
 LIMIT %(limit)s;

-- name: serving_look_alikes
-- The chunks that share most words with one, at their first place.
SELECT p.other AS chunk_id, p.jaccard, c.language, c.kind, coalesce(nullif(l.symbol, ''), c.symbol) AS symbol,
       l.source, l.path, l.start_line, l.end_line
  FROM (SELECT chunk_b AS other, jaccard FROM pgembed.candidate_pairs WHERE chunk_a = %(chunk_id)s
        UNION ALL
        SELECT chunk_a, jaccard FROM pgembed.candidate_pairs WHERE chunk_b = %(chunk_id)s
        ORDER BY jaccard DESC, other
        LIMIT %(limit)s) AS p
  JOIN pgembed.code_chunks c ON c.id = p.other
  LEFT JOIN LATERAL (
       SELECT s.name AS source, x.path, x.start_line, x.end_line, x.symbol
         FROM pgembed.chunk_locations x JOIN pgembed.sources s ON s.id = x.source_id
        WHERE x.chunk_id = p.other
        ORDER BY s.name, x.path, x.start_line
        LIMIT 1) AS l ON true
 ORDER BY p.jaccard DESC, p.other;

-- name: serving_triplets
-- A page of triplets in their fixed order, each with the reason why it is there. One row more than fits tells of a next
-- page. The ids are chosen first: explain_triplet is asked for what is shown, and for nothing else.
WITH page AS MATERIALIZED (
    SELECT t.*
      FROM pgembed.triplets t
     WHERE (%(kind)s::text IS NULL OR t.kind = %(kind)s)
       AND (%(split)s::text IS NULL OR t.split = %(split)s)
       AND (%(language)s::text IS NULL OR t.language = %(language)s)
     ORDER BY t.ordinal
    OFFSET %(skip)s
     LIMIT %(limit)s
)
SELECT t.ordinal, t.kind, t.split, t.language, t.rule, t.anchor, t.positive, t.negative, t.anchor_id, t.positive_id,
       t.negative_id, t.positive_jaccard, t.negative_jaccard, t.positive_score, t.negative_score, NULL::text AS blocked,
       (SELECT jsonb_agg(jsonb_build_array(e.aspect, e.detail)) FROM pgembed.explain_triplet(t.ordinal) AS e) AS reason
  FROM page t
 ORDER BY t.ordinal;

-- name: serving_blocked_triplets
-- Those that a person has marked, newest mark first. A mark whose triplet is not made any more is not shown.
SELECT t.ordinal, t.kind, t.split, a.language, t.rule,
       CASE t.kind WHEN 'docstring' THEN t.anchor ELSE a.body END AS anchor, p.body AS positive, n.body AS negative,
       t.anchor_id, t.positive_id, t.negative_id, t.positive_jaccard, t.negative_jaccard, t.positive_score,
       t.negative_score, b.reason AS blocked,
       (SELECT jsonb_agg(jsonb_build_array(e.aspect, e.detail)) FROM pgembed.explain_triplet(t.ordinal) AS e) AS reason
  FROM pgembed.triplet_blocks b
  JOIN pgembed.code_chunks a ON a.sha256 = b.anchor
  JOIN pgembed.code_chunks p ON p.sha256 = b.positive
  JOIN pgembed.code_chunks n ON n.sha256 = b.negative
  JOIN pgembed.triplet_candidates t
    ON t.anchor_id = a.id AND t.positive_id = p.id AND t.negative_id = n.id AND t.kind = b.kind
 WHERE (%(kind)s::text IS NULL OR t.kind = %(kind)s)
   AND (%(split)s::text IS NULL OR t.split = %(split)s)
   AND (%(language)s::text IS NULL OR a.language = %(language)s)
 ORDER BY b.created_at DESC, t.ordinal
OFFSET %(skip)s
 LIMIT %(limit)s;

-- name: serving_block_triplet
SELECT pgembed.block_triplet(%(ordinal)s, %(reason)s);

-- name: serving_unblock_triplet
-- Takes back the mark of a triplet.
DELETE FROM pgembed.triplet_blocks b
 USING pgembed.triplet_candidates t
  JOIN pgembed.code_chunks a ON a.id = t.anchor_id
  JOIN pgembed.code_chunks p ON p.id = t.positive_id
  JOIN pgembed.code_chunks n ON n.id = t.negative_id
 WHERE t.ordinal = %(ordinal)s
   AND b.kind = t.kind AND b.anchor = a.sha256 AND b.positive = p.sha256 AND b.negative = n.sha256
RETURNING b.reason;

-- name: serving_runs
SELECT r.id, r.state, r.view, b.name AS base, e.name AS encoder, r.started_at, r.finished_at, r.error,
       (r.hyperparameters ->> 'steps')::integer AS steps, m.step AS last_step, m.loss AS last_loss,
       (r.metrics ->> 'better')::boolean AS better, r.package_version
  FROM pgembed.training_runs r
  JOIN pgembed.encoders b ON b.id = r.base_encoder_id
  LEFT JOIN pgembed.encoders e ON e.id = r.encoder_id
  LEFT JOIN LATERAL (SELECT step, loss FROM pgembed.training_metrics
                      WHERE run_id = r.id ORDER BY step DESC LIMIT 1) m ON true
 ORDER BY r.id DESC
 LIMIT 200;

-- name: serving_curve
-- At most so many steps of a run, evenly spaced, the last among them.
SELECT s.step, s.loss, s.gradient_norm, s.learning_rate, s.zero_loss_share, s.triplets_per_second
  FROM (SELECT m.*, row_number() OVER (ORDER BY m.step DESC) - 1 AS back, count(*) OVER () AS steps
          FROM pgembed.training_metrics m
         WHERE m.run_id = %(run_id)s) AS s
 WHERE s.back %% ((s.steps + %(most)s - 1) / %(most)s) = 0
 ORDER BY s.step;

-- name: serving_filters
-- What the page offers in its filters.
SELECT (SELECT coalesce(array_agg(name ORDER BY name), '{}') FROM pgembed.sources) AS sources,
       ARRAY(SELECT DISTINCT language FROM pgembed.code_chunks ORDER BY 1) AS languages,
       ARRAY(SELECT DISTINCT kind FROM pgembed.code_chunks ORDER BY 1) AS kinds;

-- name: serving_evaluations
SELECT v.id, coalesce(e.name, 'words alone') AS encoder, v.dataset, v.documents, v.queries, v.settings, v.metrics,
       v.created_at, v.fingerprint
  FROM pgembed.evaluations v
  LEFT JOIN pgembed.encoders e ON e.id = v.encoder_id
 ORDER BY v.id DESC
 LIMIT 200;
