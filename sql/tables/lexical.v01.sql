-- Tables of the search by words: what a chunk says in words, how frequent each is, and the weights of the search.

-- The words of a chunk, as the search by words knows it: the tokens of body, docstring and symbol, each once.
-- An ingest writes these; chunks that were there before stand with their body's tokens until the next ingest.
CREATE TABLE lexical_documents (
    chunk_id  bigint PRIMARY KEY REFERENCES code_chunks ON DELETE CASCADE,
    token_ids integer[] NOT NULL,                      -- distinct, ascending; of tokens
    length    integer GENERATED ALWAYS AS (cardinality(token_ids)) STORED,
    described boolean NOT NULL DEFAULT true            -- false: the docstring's and the symbol's tokens are still missing
);
-- 16 MB at 100,000 functions, whose lexical documents take 20 MB
CREATE INDEX lexical_documents_token_ids_idx ON lexical_documents USING gin (token_ids);
-- Of more documents than a search looks at, it takes the shortest.
CREATE INDEX lexical_documents_length_idx ON lexical_documents (length, chunk_id);
CREATE INDEX lexical_documents_undescribed_idx ON lexical_documents (chunk_id) WHERE NOT described;
-- How often each token occurs is in tokens; statistics of arrays serve no plan, and took most of the time of ANALYZE.
ALTER TABLE lexical_documents ALTER token_ids SET STATISTICS 0;

ALTER TABLE tokens ADD COLUMN lexical_frequency integer NOT NULL DEFAULT 0;  -- lexical documents that hold it

-- How many there are, and how long on average: as of the last ingest, like the frequencies. At most one row.
CREATE TABLE lexical_statistics (
    only_row       boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    documents      bigint NOT NULL,
    average_length double precision NOT NULL
);

-- What search is told, in numbers. A person may read and UPDATE these; the next search goes by them.
CREATE TABLE search_settings (
    name        text PRIMARY KEY,
    value       double precision NOT NULL CHECK (value BETWEEN least AND most),
    least       double precision NOT NULL,
    most        double precision NOT NULL,
    description text NOT NULL
);
INSERT INTO search_settings (name, value, least, most, description) VALUES
    -- MiniLM, nDCG@10 of vectors, words, both: docstrings of the standard library .684, .576, .705; web queries of CoSQA
    -- .746, .457, .752. With the customary 60 no weight was as good as the vectors alone on CoSQA (benchmarks/hybrid.py).
    ('rrf_k',             10, 0, 1e6, 'Reciprocal rank fusion: a ranking gives its weight / (rrf_k + rank).'),
    ('vector_weight',      1, 0, 1000, 'Weight of the ranking by vectors in the fusion.'),
    ('lexical_weight',   0.2, 0, 1000, 'Weight of the ranking by words in the fusion.'),
    ('symbol_weight',      2, 0, 1000,
     'Weight of a symbol that is the query. Above the sum of the other two it comes first.'),
    ('candidates',       100, 1, 100000, 'Ranks of each list that are fused; at least twice the hits asked for.'),
    ('lexical_candidates', 4000, 100, 1e9,
     'Documents that a search by words scores, those with its rarest words. More cost time, fewer cost recall.'),
    ('bm25_k1',          1.2, 0, 100, 'BM25: how fast a length stops to count.'),
    ('bm25_b',          0.75, 0, 1, 'BM25: how much a length counts. 0: not at all.');

-- Symbols are looked up whole; a hash index takes names of any length.
CREATE INDEX code_chunks_symbol_idx ON code_chunks USING hash (symbol);
CREATE INDEX chunk_locations_symbol_idx ON chunk_locations USING hash (symbol);

-- The search by words has no encoder, and can be evaluated as well.
ALTER TABLE evaluations ALTER encoder_id DROP NOT NULL;
