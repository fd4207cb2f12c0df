-- The triplets as people query them: texts, similarities, and the rule by which each is here.
-- ordinal is a fixed order that depends on content and seed alone; LIMIT without ORDER BY answers at once.

CREATE VIEW triplets_docstring AS
SELECT t.kind, t.split, a.language, t.anchor_id, t.positive_id, t.negative_id,
       t.anchor, a.body AS positive, n.body AS negative,
       t.positive_jaccard, t.negative_jaccard, t.rule, t.ordinal
  FROM triplet_candidates t
  JOIN code_chunks a ON a.id = t.anchor_id
  JOIN code_chunks n ON n.id = t.negative_id
 WHERE t.kind = 'docstring';
COMMENT ON VIEW triplets_docstring IS 'Anchor: first paragraph of a docstring. Positive: its body without it. Negative: a look-alike body.';

CREATE VIEW triplets_code AS
SELECT t.kind, t.split, a.language, t.anchor_id, t.positive_id, t.negative_id,
       a.body AS anchor, p.body AS positive, n.body AS negative,
       t.positive_jaccard, t.negative_jaccard, t.rule, t.ordinal
  FROM triplet_candidates t
  JOIN code_chunks a ON a.id = t.anchor_id
  JOIN code_chunks p ON p.id = t.positive_id
  JOIN code_chunks n ON n.id = t.negative_id
 WHERE t.kind = 'code';
COMMENT ON VIEW triplets_code IS 'Anchor and positive: look-alikes below near-duplicate. Negative: shares little.';

CREATE VIEW triplets AS
SELECT * FROM triplets_docstring UNION ALL SELECT * FROM triplets_code;
COMMENT ON VIEW triplets IS 'All triplets. Each row says why it is here: rule, similarities, split.';
