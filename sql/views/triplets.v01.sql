-- The triplets as people query them: texts, similarities, and the rule by which each is here.
-- ordinal is a fixed order that depends on content and seed alone. Three look-ups by key a row: LIMIT 100 answers at once,
-- and a cursor streams in that order without a sort.

CREATE VIEW triplets AS
SELECT t.kind, t.split, a.language, t.anchor_id, t.positive_id, t.negative_id,
       CASE t.kind WHEN 'docstring' THEN t.anchor ELSE a.body END AS anchor, p.body AS positive, n.body AS negative,
       t.positive_jaccard, t.negative_jaccard, t.rule, t.ordinal
  FROM triplet_candidates t
  JOIN code_chunks a ON a.id = t.anchor_id
  JOIN code_chunks p ON p.id = t.positive_id
  JOIN code_chunks n ON n.id = t.negative_id;
COMMENT ON VIEW triplets IS
    'All triplets. Each row says why it is here: rule, similarities, split. positive_jaccard of a docstring''s own body is 1.';

CREATE VIEW triplets_docstring AS SELECT * FROM triplets WHERE kind = 'docstring';
COMMENT ON VIEW triplets_docstring IS
    'Anchor: first paragraph of a docstring. Positive: its body without it. Negative: a look-alike body.';

CREATE VIEW triplets_code AS SELECT * FROM triplets WHERE kind = 'code';
COMMENT ON VIEW triplets_code IS 'Anchor and positive: look-alikes below near-duplicate. Negative: shares little.';
