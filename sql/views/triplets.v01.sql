-- The triplets as people query them: texts, similarities, and the rule by which each is here.
-- ordinal is a fixed order that depends on content and seed alone. What a person has marked as bad is left out at once.
-- OFFSET 0 holds every look-up to its key, row by row: so LIMIT 100 answers at once, and a cursor streams in the order of
-- ordinal. Left to itself the planner hashed all chunks three times and sorted all texts before the first row; to read all of
-- them that is no faster.

CREATE VIEW triplets AS
SELECT t.kind, t.split, a.language, t.anchor_id, t.positive_id, t.negative_id,
       CASE t.kind WHEN 'docstring' THEN t.anchor ELSE a.body END AS anchor, p.body AS positive, n.body AS negative,
       t.positive_jaccard, t.negative_jaccard, t.rule, t.ordinal, t.generation_id, t.positive_score, t.negative_score
  FROM triplet_candidates t
 CROSS JOIN LATERAL (SELECT c.sha256, c.language, c.body FROM code_chunks c WHERE c.id = t.anchor_id OFFSET 0) AS a
 CROSS JOIN LATERAL (SELECT c.sha256, c.body FROM code_chunks c WHERE c.id = t.positive_id OFFSET 0) AS p
 CROSS JOIN LATERAL (SELECT c.sha256, c.body FROM code_chunks c WHERE c.id = t.negative_id OFFSET 0) AS n
 WHERE NOT EXISTS (SELECT FROM chunk_blocks b WHERE b.sha256 IN (a.sha256, p.sha256, n.sha256) OFFSET 0)
   AND NOT EXISTS (SELECT FROM triplet_blocks b
                    WHERE b.anchor = a.sha256 AND b.positive = p.sha256 AND b.negative = n.sha256 AND b.kind = t.kind OFFSET 0);
COMMENT ON VIEW triplets IS
    'All triplets. Each row says why it is here: rule, similarities, split; in words: explain_triplet(ordinal).';
COMMENT ON COLUMN triplets.positive_jaccard IS 'Of anchor and positive; 1 for a docstring''s own body';
COMMENT ON COLUMN triplets.negative_jaccard IS 'Of the anchor''s chunk and the negative';
COMMENT ON COLUMN triplets.positive_score IS 'Cosine of anchor and positive in the generation; null where no vector was asked';
COMMENT ON COLUMN triplets.negative_score IS 'Cosine of the anchor''s chunk and the negative; null where no vector was asked';

CREATE VIEW triplets_docstring AS SELECT * FROM triplets WHERE kind = 'docstring';
COMMENT ON VIEW triplets_docstring IS
    'Anchor: first paragraph of a docstring. Positive: its body without it. Negative: a look-alike body.';

CREATE VIEW triplets_code AS SELECT * FROM triplets WHERE kind = 'code';
COMMENT ON VIEW triplets_code IS 'Anchor and positive: look-alikes below near-duplicate. Negative: shares little.';
