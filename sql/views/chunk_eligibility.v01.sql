-- Which chunks may be in triplets, and in words why the others may not: the filters of mining_settings and
-- mining_exclusions, in the order in which they are asked. refresh_triplets takes what stands here without a refusal, and
-- why_no_triplets tells a chunk's row; for all chunks:
--
--   SELECT refused, count(*) FROM pgembed.chunk_eligibility GROUP BY refused ORDER BY count(*) DESC;
--
-- Reads code_chunks, chunk_locations, chunk_splits, jaccard_sets, chunk_blocks and the two tables of filters. One chunk by its
-- id takes a millisecond; all of them, 0.1 ms each, for the sake of the regular expressions.

CREATE VIEW chunk_eligibility AS
SELECT c.id AS chunk_id, c.sha256, c.language, p.split, c.token_count AS tokens, r.refused,
       CASE WHEN r.refused IS NULL AND d.refused IS NULL THEN d.text END AS anchor,
       coalesce(r.refused, d.refused) AS anchor_refused
  FROM (SELECT max(value) FILTER (WHERE name = 'min_tokens')          AS min_tokens,
               max(value) FILTER (WHERE name = 'max_tokens')          AS max_tokens,
               max(value) FILTER (WHERE name = 'min_lines')           AS min_lines,
               max(value) FILTER (WHERE name = 'max_lines')           AS max_lines,
               max(value) FILTER (WHERE name = 'min_docstring_words') AS min_words,
               max(value) FILTER (WHERE name = 'max_anchor_words')    AS max_words
          FROM mining_settings) AS s
 CROSS JOIN code_chunks c
  LEFT JOIN chunk_splits p ON p.chunk_id = c.id
  LEFT JOIN jaccard_sets j ON j.chunk_id = c.id
 CROSS JOIN LATERAL (
       SELECT CASE
           WHEN c.kind NOT IN ('function', 'method') THEN 'it is a ' || c.kind || ': only functions and methods are taken'
           WHEN p.chunk_id IS NULL                   THEN 'it came after the triplets were made'
           WHEN p.split IS NULL                      THEN 'it is in no split: ' || p.reason
           WHEN j.chunk_id IS NULL                   THEN 'it has no tokens to be compared by'
           WHEN c.token_count < s.min_tokens         THEN 'too few tokens: fewer than min_tokens = ' || s.min_tokens
           WHEN c.token_count > s.max_tokens         THEN 'too many tokens: more than max_tokens = ' || s.max_tokens
           WHEN c.line_count < s.min_lines           THEN 'too few lines: fewer than min_lines = ' || s.min_lines
           WHEN c.line_count > s.max_lines           THEN 'too many lines: more than max_lines = ' || s.max_lines
           ELSE coalesce(
               (SELECT 'blocked by a person: ' || b.reason FROM chunk_blocks b WHERE b.sha256 = c.sha256),
               (SELECT 'excluded by the rule ' || e.name || ' on its ' || e.field || ': ' || e.reason
                  FROM mining_exclusions e
                 WHERE e.enabled
                   AND CASE e.field WHEN 'language' THEN c.language WHEN 'symbol' THEN c.symbol WHEN 'body' THEN c.body END
                       ~ e.pattern
                 ORDER BY e.name LIMIT 1),
               -- a place that no rule matches is enough
               CASE WHEN NOT EXISTS (
                        SELECT FROM chunk_locations l
                         WHERE l.chunk_id = c.id
                           AND NOT EXISTS (SELECT FROM mining_exclusions e
                                            WHERE e.enabled AND e.field = 'path' AND l.path ~ e.pattern))
                    THEN 'excluded by the rule ' || (
                         SELECT string_agg(DISTINCT e.name || ' on its path: ' || e.reason, '; and by the rule ')
                           FROM chunk_locations l
                           JOIN mining_exclusions e ON e.enabled AND e.field = 'path' AND l.path ~ e.pattern
                          WHERE l.chunk_id = c.id) END)
           END AS refused OFFSET 0) AS r
 CROSS JOIN LATERAL (
       -- only of what is not refused already
       SELECT a.text, CASE
           WHEN r.refused IS NOT NULL THEN NULL
           WHEN a.text IS NULL        THEN 'it has no docstring'
           WHEN a.text !~ ('^(\S+\s+){' || s.min_words - 1 || '}\S')
               THEN 'its docstring is too short: its first paragraph has fewer words than min_docstring_words = ' || s.min_words
           ELSE (SELECT 'its docstring is excluded by the rule ' || e.name || ': ' || e.reason
                   FROM mining_exclusions e
                  WHERE e.enabled AND e.field = 'docstring' AND c.docstring ~ e.pattern
                  ORDER BY e.name LIMIT 1) END AS refused
         FROM (SELECT CASE WHEN r.refused IS NULL THEN docstring_anchor(c.docstring, s.max_words::integer) END AS text
               OFFSET 0) AS a
       OFFSET 0) AS d;
COMMENT ON VIEW chunk_eligibility IS
    'Each chunk: may it be in triplets (refused is null), may its docstring be an anchor (anchor_refused is null), and why not';
