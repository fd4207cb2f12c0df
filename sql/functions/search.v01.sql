-- search(query, k, filters, generation, exact): the hits of a search, best first, each chunk once.
--
-- Bring a vector of 2,560 dimensions from the encoder of the generation (the active one, unless another is named):
--
--   SELECT rank, score, path, start_line, symbol
--     FROM pgembed.search($1, 10, language => 'python', path => 'src/*');
--
-- A chunk that stands in many places is one hit: its first place (of those that pass the filters) by source and path,
-- and how many places there are. path is a glob: see path_patterns.
-- Reads generations, code_embeddings, code_chunks, chunk_locations, sources; writes nothing. Raises what nearest raises.
CREATE TYPE search_hit AS (
    rank       integer,
    score      double precision,   -- cosine similarity, -1 to 1
    chunk_id   bigint,
    language   text,
    kind       text,
    symbol     text,               -- the qualified name at this place, else the chunk's own
    source     text,
    path       text,
    start_line integer,
    end_line   integer,
    content    text,
    locations  bigint              -- places where this very code stands
);

CREATE FUNCTION search(
    query vector(2560), k integer DEFAULT 10, language text DEFAULT NULL, path text DEFAULT NULL,
    source text DEFAULT NULL, kind text DEFAULT NULL, generation bigint DEFAULT NULL, exact boolean DEFAULT false
)
RETURNS SETOF search_hit
LANGUAGE sql STABLE
ROWS 10
SET search_path FROM CURRENT
AS $$
    SELECT row_number() OVER (ORDER BY n.score DESC, n.chunk_id)::integer, n.score, c.id, c.language, c.kind,
           coalesce(nullif(place.symbol, ''), c.symbol), place.source, place.path, place.start_line, place.end_line,
           c.content, (SELECT count(*) FROM chunk_locations l WHERE l.chunk_id = c.id)
      FROM nearest(search.query, search.k, search.language, search.path, search.source, search.kind,
                   search.generation, search.exact) n
      JOIN code_chunks c ON c.id = n.chunk_id
      LEFT JOIN LATERAL (
               SELECT s.name AS source, l.path, l.start_line, l.end_line, l.symbol
                 FROM chunk_locations l
                 JOIN sources s ON s.id = l.source_id
                WHERE l.chunk_id = c.id
                  AND (search.path   IS NULL OR l.path LIKE ANY (path_patterns(search.path)))
                  AND (search.source IS NULL OR s.name = search.source)
                ORDER BY s.name, l.path, l.start_line
                LIMIT 1) place ON true
     ORDER BY 1;
$$;

COMMENT ON FUNCTION search(vector, integer, text, text, text, text, bigint, boolean)
    IS 'Search the active generation (or another) by a vector: hits with score, place and content, best first';
