-- What must hold at any time, whatever was killed: asked by `pgembed doctor --strict`, in one snapshot of the database.
--
-- Each query finds what is wrong and gives one row for each, in words (place text); none: the invariant holds. They read
-- only. Those of whole tables cost one pass each; those that compute something again look at %(sample)s rows, the same
-- in every run (by the hash of the id). No semicolons: count_violations puts them in its parentheses.

-- name: begin_snapshot
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY

-- name: count_violations
SELECT count(*), (array_agg(v.place ORDER BY length(v.place), v.place))[1:3] FROM (
{violations}
) AS v (place)

-- ---------------------------------------------------------------- generations

-- name: broken_pointer
-- What is pointed to is active, nothing else is, and what rollback goes back to is retired.
SELECT format('generation %%s is pointed to and is %%s', g.id, g.state)
  FROM pgembed.active_generation a JOIN pgembed.generations g ON g.id = a.generation_id
 WHERE g.state <> 'active'
UNION ALL
SELECT format('generation %%s is active and is not pointed to', g.id)
  FROM pgembed.generations g
 WHERE g.state = 'active' AND NOT EXISTS (SELECT FROM pgembed.active_generation a WHERE a.generation_id = g.id)
UNION ALL
SELECT format('generation %%s is to be gone back to and is %%s', g.id, g.state)
  FROM pgembed.active_generation a JOIN pgembed.generations g ON g.id = a.previous_id
 WHERE g.state <> 'retired'
UNION ALL
SELECT format('%%s pointers', count(*)) FROM pgembed.active_generation HAVING count(*) > 1

-- name: broken_generation_rows
-- A finished generation says when it was filled and indexed, how it was calibrated, and how wide its vectors are.
SELECT format('generation %%s is %%s: %%s', g.id, g.state, w.what)
  FROM pgembed.generations g
 CROSS JOIN LATERAL (VALUES
       (g.dims <> 2560, g.dims || ' dimensions'),
       (g.filled_at IS NULL OR g.indexed_at IS NULL OR g.state = 'active' AND g.activated_at IS NULL, 'a time is missing'),
       (g.probes IS NULL OR g.index_recall IS NULL OR g.lists IS NULL, 'it was never calibrated'),
       (g.index_method = 'ivfflat' AND g.probes NOT BETWEEN 1 AND g.lists, g.probes || ' probes of ' || g.lists || ' lists')
       ) AS w(wrong, what)
 WHERE g.state IN ('ready', 'active', 'retired') AND w.wrong

-- name: broken_generation_tables
-- Each has its table: a partition once it is indexed, a plain table before.
SELECT format('generation %%s is %%s: %%s', g.id, g.state, w.what)
  FROM (SELECT g.id, g.state, to_regclass(format('pgembed.code_embeddings_%%s', g.id)) AS place
          FROM pgembed.generations g WHERE g.state <> 'failed') AS g
  LEFT JOIN pg_inherits i ON i.inhrelid = g.place AND i.inhparent = 'pgembed.code_embeddings'::regclass
 CROSS JOIN LATERAL (VALUES
       (g.place IS NULL, 'it has no table'),
       (i.inhdetachpending, 'its table is half detached'),
       (g.place IS NOT NULL AND i.inhrelid IS NULL AND g.state IN ('ready', 'active', 'retired'), 'its table is not attached'),
       (i.inhrelid IS NOT NULL AND g.state = 'filling', 'its table is attached')
       ) AS w(wrong, what)
 WHERE w.wrong

-- name: left_generations
-- Half done, and no worker is at it.
SELECT format('generation %%s is %%s', g.id, g.state)
  FROM pgembed.generations g
 WHERE g.state IN ('filling', 'indexing')
   AND NOT EXISTS (SELECT FROM pg_locks l
                    WHERE l.locktype = 'advisory' AND l.objsubid = 1
                      AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('pgembed reindex', g.encoder_id))

-- name: broken_generation_indexes
-- A finished generation has the index that the parent declares, part of the parent's, and the one that it chose.
SELECT format('index %%s is %%s', w.name, CASE WHEN x.indexrelid IS NULL THEN 'missing'
                                               WHEN NOT x.indisvalid     THEN 'invalid' ELSE 'not the parent''s' END)
  FROM pgembed.generations g
 CROSS JOIN LATERAL (SELECT format('code_embeddings_%%s_embedding_idx', g.id), true
                      UNION
                     SELECT format('code_embeddings_%%s_%%s_idx', g.id, g.index_method), false
                      WHERE g.index_method <> 'ivfflat') AS w(name, is_parents)
  LEFT JOIN pg_index x ON x.indexrelid = to_regclass('pgembed.' || w.name)
 WHERE g.state IN ('ready', 'active', 'retired')
   AND (x.indisvalid IS NOT TRUE
        OR w.is_parents AND NOT EXISTS (
               SELECT FROM pg_inherits i WHERE i.inhrelid = x.indexrelid
                                           AND i.inhparent = to_regclass('pgembed.code_embeddings_embedding_idx')))

-- name: left_indexes
-- What an interrupted build left, and indexes over vectors that no generation claims.
SELECT format('index %%s of table %%s', c.relname, t.relname)
  FROM pg_index x
  JOIN pg_class c ON c.oid = x.indexrelid
  JOIN pg_class t ON t.oid = x.indrelid
  JOIN pg_am m ON m.oid = c.relam
 WHERE t.relnamespace = 'pgembed'::regnamespace AND t.relkind = 'r'
   AND (NOT x.indisvalid
        OR m.amname IN ('ivfflat', 'hnsw') AND t.relname ~ '^code_embeddings_\d+$'
           AND NOT EXISTS (SELECT FROM pgembed.generations g
                            WHERE t.relname = format('code_embeddings_%%s', g.id)
                              AND c.relname IN (format('code_embeddings_%%s_embedding_idx', g.id),
                                                format('code_embeddings_%%s_%%s_idx', g.id, g.index_method))))
   -- one that a generation misses is told by broken_generation_indexes
   AND NOT EXISTS (SELECT FROM pgembed.generations g
                    WHERE g.state IN ('ready', 'active', 'retired') AND NOT x.indisvalid
                      AND c.relname IN (format('code_embeddings_%%s_embedding_idx', g.id),
                                        format('code_embeddings_%%s_%%s_idx', g.id, g.index_method)))

-- name: finished_generations
SELECT g.id, g.state, e.spec, g.onnx_path, g.onnx_sha256, e.fingerprint,
       coalesce((SELECT array_agg(r.value::bigint) FROM jsonb_array_elements_text(g.metrics -> 'rejected_chunks') AS r), '{}')
  FROM pgembed.generations g JOIN pgembed.encoders e ON e.id = g.encoder_id
 WHERE g.state IN ('ready', 'active', 'retired')
   AND to_regclass(format('pgembed.code_embeddings_%%s', g.id)) IS NOT NULL
 ORDER BY g.id

-- Of one finished generation; {table} is its table.

-- name: vectors_missing
-- A live chunk has its vector. (Of the active one the usual checks tell; a retired one may fall behind.)
SELECT format('chunk %%s', c.id)
  FROM pgembed.code_chunks c
 WHERE %(state)s = 'ready' AND c.id <> ALL (%(rejected)s)
   AND NOT EXISTS (SELECT FROM {table} v WHERE v.generation_id = %(generation_id)s AND v.chunk_id = c.id)

-- name: vectors_of_no_chunk
SELECT format('chunk %%s', v.chunk_id)
  FROM {table} v WHERE NOT EXISTS (SELECT FROM pgembed.code_chunks c WHERE c.id = v.chunk_id)

-- name: vectors_twice
SELECT format('chunk %%s has %%s', v.chunk_id, count(*)) FROM {table} v GROUP BY v.chunk_id HAVING count(*) > 1

-- name: vectors_of_others
SELECT format('chunk %%s, generation %%s', v.chunk_id, v.generation_id)
  FROM {table} v WHERE v.generation_id <> %(generation_id)s

-- name: vectors_of_rejected
SELECT format('chunk %%s', v.chunk_id) FROM {table} v WHERE v.chunk_id = ANY (%(rejected)s)

-- name: vectors_miscounted
SELECT format('it says %%s and has %%s', coalesce(g.row_count::text, 'nothing'), v.rows)
  FROM pgembed.generations g CROSS JOIN (SELECT count(*) AS rows FROM {table}) AS v
 WHERE g.id = %(generation_id)s AND g.state <> 'retired' AND g.row_count IS DISTINCT FROM v.rows

-- name: vectors_not_unit
-- Finite and of length 1: each tower's part is, and so is what is joined of them. NaN is between no two numbers.
SELECT format('chunk %%s: length %%s', v.chunk_id, n.length)
  FROM {table} v CROSS JOIN LATERAL (SELECT vector_norm(v.embedding) AS length OFFSET 0) AS n
 WHERE NOT n.length BETWEEN 0.999 AND 1.001

-- name: vectors_beyond_slot
-- A tower that is narrower than its slot leaves zeros behind it.
SELECT format('chunk %%s', v.chunk_id)
  FROM {table} v CROSS JOIN unnest(%(starts)s::integer[], %(widths)s::integer[]) AS s(start, width)
 WHERE vector_norm(subvector(v.embedding, s.start, s.width)) <> 0

-- ---------------------------------------------------------------- chunks

-- name: left_sources
-- Begun and never read to the end, and no ingest is at it.
SELECT format('source %%s (%%s)', s.name, s.root)
  FROM pgembed.sources s
 WHERE s.ingested_at IS NULL
   AND NOT EXISTS (SELECT FROM pg_locks l
                    WHERE l.locktype = 'advisory' AND l.objsubid = 1
                      AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('pgembed.source', s.id))

-- name: chunks_without_place
SELECT format('chunk %%s', c.id)
  FROM pgembed.code_chunks c WHERE NOT EXISTS (SELECT FROM pgembed.chunk_locations l WHERE l.chunk_id = c.id)

-- name: places_of_nothing
SELECT format('%%s:%%s, chunk %%s', l.path, l.start_line, l.chunk_id)
  FROM pgembed.chunk_locations l
 WHERE NOT EXISTS (SELECT FROM pgembed.code_chunks c WHERE c.id = l.chunk_id)
    OR NOT EXISTS (SELECT FROM pgembed.source_files f WHERE f.source_id = l.source_id AND f.path = l.path)

-- name: chunks_misaddressed
-- The address is the content's: the same code has it on every machine.
SELECT format('chunk %%s', c.id)
  FROM pgembed.code_chunks c
 WHERE c.sha256 <> sha256(convert_to(c.language, 'UTF8') || '\x00'::bytea || convert_to(c.kind, 'UTF8') || '\x00'::bytea
                          || convert_to(c.content, 'UTF8'))

-- name: chunks_torn
-- Lines are those of the content, here and at every place, and what has no docstring is its own body.
SELECT format('chunk %%s: %%s', c.id, w.what)
  FROM pgembed.code_chunks c
 CROSS JOIN LATERAL (VALUES
       (c.line_count <> length(c.content) - length(replace(c.content, E'\n', '')) + 1, c.line_count || ' lines'),
       (c.docstring IS NULL AND c.body <> c.content, 'a body that is not its content')) AS w(wrong, what)
 WHERE w.wrong
UNION ALL
SELECT format('%%s:%%s-%%s, chunk %%s', l.path, l.start_line, l.end_line, l.chunk_id)
  FROM pgembed.chunk_locations l WHERE l.start_line < 1 OR l.end_line < l.start_line

-- name: tokens_unknown
-- Token ids are ascending, each once, and stand in tokens.
SELECT format('chunk %%s', c.id)
  FROM pgembed.code_chunks c
 WHERE EXISTS (SELECT FROM unnest(c.token_ids) WITH ORDINALITY AS t(id, place)
                WHERE t.place > 1 AND t.id <= c.token_ids[t.place - 1]
                   OR NOT EXISTS (SELECT FROM pgembed.tokens k WHERE k.id = t.id))

-- name: tokens_miscounted
SELECT format('token %%s: it says %%s and is in %%s chunks', t.token, t.document_frequency, coalesce(c.chunks, 0))
  FROM pgembed.tokens t
  LEFT JOIN (SELECT unnest(token_ids) AS id, count(*) AS chunks FROM pgembed.code_chunks GROUP BY 1) AS c ON c.id = t.id
 WHERE t.document_frequency <> coalesce(c.chunks, 0)

-- name: token_sample
-- For splitting again: the texts of some chunks, and the tokens that stand for their bodies and for all of them.
SELECT c.id, c.symbol, c.docstring, c.body,
       ARRAY(SELECT t.token FROM pgembed.tokens t WHERE t.id = ANY (c.token_ids)),
       (SELECT ARRAY(SELECT t.token FROM pgembed.tokens t WHERE t.id = ANY (d.token_ids))
          FROM pgembed.lexical_documents d WHERE d.chunk_id = c.id AND d.described)
  FROM pgembed.code_chunks c
 ORDER BY hashint8(c.id), c.id
 LIMIT %(sample)s

-- ---------------------------------------------------------------- search by words

-- name: words_missing
SELECT format('chunk %%s', c.id)
  FROM pgembed.code_chunks c
 WHERE NOT EXISTS (SELECT FROM pgembed.lexical_documents d WHERE d.chunk_id = c.id AND d.described)

-- name: words_of_nothing
SELECT format('chunk %%s', d.chunk_id)
  FROM pgembed.lexical_documents d WHERE NOT EXISTS (SELECT FROM pgembed.code_chunks c WHERE c.id = d.chunk_id)

-- name: words_lost
-- A document has at least the tokens of its chunk's body.
SELECT format('chunk %%s', c.id)
  FROM pgembed.code_chunks c JOIN pgembed.lexical_documents d ON d.chunk_id = c.id
 WHERE NOT d.token_ids @> c.token_ids

-- name: words_miscounted
SELECT format('token %%s: it says %%s and is in %%s documents', t.token, t.lexical_frequency, coalesce(d.documents, 0))
  FROM pgembed.tokens t
  LEFT JOIN (SELECT unnest(token_ids) AS id, count(*) AS documents FROM pgembed.lexical_documents GROUP BY 1) AS d
         ON d.id = t.id
 WHERE t.lexical_frequency <> coalesce(d.documents, 0)
UNION ALL
SELECT format('statistics: %%s documents of %%s tokens, and there are %%s of %%s', coalesce(s.documents, 0),
              round(coalesce(s.average_length, 0)::numeric, 3), d.documents, round(d.length::numeric, 3))
  FROM (SELECT count(*) AS documents, coalesce(avg(length), 0) AS length FROM pgembed.lexical_documents) AS d
  LEFT JOIN pgembed.lexical_statistics s ON true
 WHERE coalesce(s.documents, 0) <> d.documents OR abs(coalesce(s.average_length, 0) - d.length) > 1e-6

-- ---------------------------------------------------------------- pairs

-- name: pairs_disordered
SELECT format('(%%s, %%s)', p.chunk_a, p.chunk_b) FROM pgembed.candidate_pairs p WHERE p.chunk_a >= p.chunk_b

-- name: pairs_below_threshold
SELECT format('(%%s, %%s) at %%s', p.chunk_a, p.chunk_b, round(p.jaccard::numeric, 4))
  FROM pgembed.candidate_pairs p, (SELECT min_jaccard FROM pgembed.pair_runs ORDER BY id DESC LIMIT 1) AS r
 WHERE p.jaccard < r.min_jaccard - 1e-9

-- name: pairs_miscomputed
SELECT format('(%%s, %%s): %%s shared, %%s', p.chunk_a, p.chunk_b, p.intersection, round(p.jaccard::numeric, 4))
  FROM (SELECT * FROM pgembed.candidate_pairs ORDER BY hashint8(chunk_a), chunk_a, chunk_b LIMIT %(sample)s) AS p
  JOIN pgembed.code_chunks a ON a.id = p.chunk_a
  JOIN pgembed.code_chunks b ON b.id = p.chunk_b
 CROSS JOIN LATERAL (SELECT count(*) AS shared
                       FROM (SELECT unnest(a.token_ids) INTERSECT SELECT unnest(b.token_ids)) AS s) AS k
 WHERE p.intersection <> k.shared
    OR abs(p.jaccard - k.shared::float8 / nullif(a.token_count + b.token_count - k.shared, 0)) > 1e-9

-- name: pairs_missing
-- All pairs of some chunks are found again, where the last run was exact and left nothing to do.
SELECT format('(%%s, %%s) at %%s', e.chunk_a, e.chunk_b, round(e.jaccard::numeric, 4))
  FROM (SELECT * FROM pgembed.pair_runs ORDER BY id DESC LIMIT 1) AS r
 CROSS JOIN LATERAL pgembed.jaccard_pairs_of(
       ARRAY(SELECT s.chunk_id FROM pgembed.jaccard_sets s ORDER BY hashint8(s.chunk_id), s.chunk_id LIMIT %(probes)s),
       round(r.min_jaccard * 1000)::integer, r.min_tokens) AS e
 WHERE r.state = 'finished' AND NOT r.approximate AND NOT EXISTS (SELECT FROM pgembed.pair_queue)
   AND NOT EXISTS (SELECT FROM pgembed.candidate_pairs p WHERE p.chunk_a = e.chunk_a AND p.chunk_b = e.chunk_b)

-- name: pairs_waiting
-- Once pairs were looked for, every chunk was compared.
SELECT format('chunk %%s', c.id)
  FROM pgembed.code_chunks c
 WHERE c.token_count > 0 AND EXISTS (SELECT FROM pgembed.pair_runs)
   AND (NOT EXISTS (SELECT FROM pgembed.jaccard_sets s WHERE s.chunk_id = c.id)
        OR EXISTS (SELECT FROM pgembed.pair_queue q WHERE q.chunk_id = c.id))
   AND NOT EXISTS (SELECT FROM pg_locks l
                    WHERE l.locktype = 'advisory'
                      AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended('pgembed.pairs', 0))

-- name: sets_of_nothing
SELECT format('chunk %%s', s.chunk_id)
  FROM pgembed.jaccard_sets s WHERE NOT EXISTS (SELECT FROM pgembed.code_chunks c WHERE c.id = s.chunk_id)

-- name: sets_differing
-- The set that pairs are found by is the chunk's token ids: the first of them in the order of the join, and a bit for each.
SELECT format('chunk %%s', s.chunk_id)
  FROM (SELECT * FROM pgembed.jaccard_sets ORDER BY hashint8(chunk_id), chunk_id LIMIT %(sample)s) AS s
  JOIN pgembed.code_chunks c ON c.id = s.chunk_id
 WHERE s.n <> c.token_count
    OR s.prefix IS DISTINCT FROM ARRAY(SELECT coalesce(r.rank, -t.id) AS place
                                         FROM unnest(c.token_ids) AS t(id)
                                         LEFT JOIN pgembed.jaccard_ranks r ON r.token_id = t.id
                                        ORDER BY place LIMIT cardinality(s.prefix))
    OR s.sketch IS DISTINCT FROM (SELECT bit_xor(1::bit(256) << (t.id & 255)) FROM unnest(c.token_ids) AS t(id))
    OR s.members IS NULL AND s.n <= 16000
    OR -(s.members <#> s.members) <> s.n

-- name: slices_open
SELECT format('run %%s, slice %%s', r.id, s.ordinal)
  FROM pgembed.pair_runs r JOIN pgembed.pair_slices s ON s.run_id = r.id
 WHERE r.state = 'finished' AND s.pairs IS NULL

-- ---------------------------------------------------------------- splits and triplets

-- name: splits_leaking
-- No near-duplicates in two splits.
SELECT format('chunk %%s in %%s, chunk %%s in %%s: %%s', a.chunk_id, a.split, b.chunk_id, b.split,
              round(p.jaccard::numeric, 4))
  FROM pgembed.candidate_pairs p
  JOIN pgembed.chunk_splits a ON a.chunk_id = p.chunk_a
  JOIN pgembed.chunk_splits b ON b.chunk_id = p.chunk_b
 WHERE p.jaccard >= pgembed.mining_setting('near_duplicate') AND a.split <> b.split

-- name: splits_misplaced
-- A chunk is in the split of each file that it stands in. Where triplets are out of date, that alone is told.
SELECT DISTINCT format('chunk %%s in %%s: %%s/%%s', p.chunk_id, p.split, f.name, f.path)
  FROM pgembed.chunk_splits p
  JOIN pgembed.chunk_locations l ON l.chunk_id = p.chunk_id
  JOIN (SELECT f.source_id, f.path, s.name, pgembed.split_of(s.name, f.path) AS split
          FROM pgembed.source_files f JOIN pgembed.sources s ON s.id = f.source_id) AS f
    ON f.source_id = l.source_id AND f.path = l.path
 WHERE p.split <> f.split AND NOT EXISTS (SELECT FROM pgembed.stale_inputs())

-- name: triplets_stale
SELECT format('changed: %%s', string_agg(i, ', ' ORDER BY i))
  FROM pgembed.stale_inputs() AS i
 WHERE EXISTS (SELECT FROM pgembed.triplet_state) OR EXISTS (SELECT FROM pgembed.pair_runs WHERE state = 'finished')
HAVING count(*) > 0

-- name: triplets_of_nothing
SELECT format('triplet %%s, chunk %%s', t.ordinal, k.id)
  FROM pgembed.triplet_candidates t CROSS JOIN unnest(ARRAY[t.anchor_id, t.positive_id, t.negative_id]) AS k(id)
 WHERE NOT EXISTS (SELECT FROM pgembed.code_chunks c WHERE c.id = k.id)

-- name: triplets_across_splits
SELECT format('triplet %%s in %%s, chunk %%s in %%s', t.ordinal, t.split, k.id, coalesce(p.split, 'none'))
  FROM pgembed.triplet_candidates t
 CROSS JOIN unnest(ARRAY[t.anchor_id, t.positive_id, t.negative_id]) AS k(id)
  LEFT JOIN pgembed.chunk_splits p ON p.chunk_id = k.id
 WHERE p.split IS DISTINCT FROM t.split

-- name: triplets_contradicting
-- The negative is neither the positive nor its near-duplicate; a described function is its own positive.
SELECT format('triplet %%s: %%s', t.ordinal, w.what)
  FROM pgembed.triplet_candidates t
 CROSS JOIN LATERAL (VALUES
       (t.negative_id IN (t.anchor_id, t.positive_id), 'the negative is the positive'),
       (t.kind = 'docstring' AND (t.anchor_id <> t.positive_id OR t.anchor IS NULL), 'the positive is another function'),
       (t.kind = 'code' AND t.anchor_id = t.positive_id, 'the positive is the anchor'),
       (t.negative_jaccard >= pgembed.mining_setting('near_duplicate')
        OR EXISTS (SELECT FROM pgembed.candidate_pairs p
                    WHERE p.chunk_a = least(t.positive_id, t.negative_id)
                      AND p.chunk_b = greatest(t.positive_id, t.negative_id)
                      AND p.jaccard >= pgembed.mining_setting('near_duplicate')), 'the negative is a near-duplicate')
       ) AS w(wrong, what)
 WHERE w.wrong AND NOT EXISTS (SELECT FROM pgembed.stale_inputs(false))

-- name: triplets_miscomputed
SELECT format('triplet %%s: %%s and %%s', t.ordinal, round(t.positive_jaccard::numeric, 4), round(t.negative_jaccard::numeric, 4))
  FROM (SELECT * FROM pgembed.triplet_candidates ORDER BY ordinal LIMIT %(sample)s) AS t
  JOIN pgembed.code_chunks a ON a.id = t.anchor_id
  JOIN pgembed.code_chunks p ON p.id = t.positive_id
  JOIN pgembed.code_chunks n ON n.id = t.negative_id
 CROSS JOIN LATERAL (SELECT count(*) AS shared
                       FROM (SELECT unnest(a.token_ids) INTERSECT SELECT unnest(p.token_ids)) AS s) AS x
 CROSS JOIN LATERAL (SELECT count(*) AS shared
                       FROM (SELECT unnest(a.token_ids) INTERSECT SELECT unnest(n.token_ids)) AS s) AS y
 WHERE abs(t.positive_jaccard - x.shared::float8 / nullif(a.token_count + p.token_count - x.shared, 0)) > 1e-9
    OR abs(t.negative_jaccard - y.shared::float8 / nullif(a.token_count + n.token_count - y.shared, 0)) > 1e-9

-- ---------------------------------------------------------------- training

-- name: left_runs
-- Said to be running, and no process is at it.
SELECT format('run %%s', r.id)
  FROM pgembed.training_runs r
 WHERE r.state = 'running'
   AND NOT EXISTS (SELECT FROM pg_locks l
                    WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.objid::bigint = r.id
                      AND l.classid::bigint = hashtext('pgembed.train')::bigint & 4294967295)

-- name: runs_incomplete
-- A finished run says what came of it, and each of its steps was taken once.
SELECT format('run %%s: %%s', r.id, w.what)
  FROM pgembed.training_runs r
 CROSS JOIN LATERAL (SELECT count(*) AS steps, coalesce(max(m.step), 0) AS last
                       FROM pgembed.training_metrics m WHERE m.run_id = r.id) AS m
 CROSS JOIN LATERAL (VALUES
       (num_nulls(r.encoder_id, r.checkpoint_path, r.finished_at) > 0, 'it has no result'),
       (m.steps + (r.metrics ->> 'skipped_steps')::bigint <> (r.metrics ->> 'steps')::bigint
        OR m.last > (r.metrics ->> 'steps')::bigint,
        format('%%s steps are noted, the last is %%s, of %%s', m.steps, m.last, r.metrics ->> 'steps'))) AS w(wrong, what)
 WHERE r.state = 'finished' AND w.wrong

-- name: finished_runs
SELECT r.id, r.checkpoint_path, e.fingerprint
  FROM pgembed.training_runs r LEFT JOIN pgembed.encoders e ON e.id = r.encoder_id
 WHERE r.state = 'finished' AND r.checkpoint_path IS NOT NULL
 ORDER BY r.id
