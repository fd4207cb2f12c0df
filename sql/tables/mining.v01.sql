-- Tables of mining, version 1: the settings, what the Jaccard join prepares, and what the triplet views stand on.

-- What mining is told. A person may read and UPDATE these; `pgembed triplets --refresh` then applies them.
CREATE TABLE mining_settings (
    name        text PRIMARY KEY,
    value       double precision NOT NULL,
    description text NOT NULL
);
INSERT INTO mining_settings (name, value, description) VALUES
    ('seed',                     0,    'Another seed gives other splits and other random choices.'),
    ('train_share',              0.8,  'Share of the files whose code may be trained on.'),
    ('validation_share',         0.1,  'Share of the files kept for choosing; the rest is the test split.'),
    ('near_duplicate',           0.8,  'Jaccard from which two chunks count as copies: never in two splits, never a negative.'),
    ('min_tokens',               5,    'Chunks with fewer distinct tokens are trivial and give no triplets.'),
    ('max_tokens',               400,  'Chunks with more distinct tokens give no triplets.'),
    ('min_lines',                2,    'Chunks with fewer lines give no triplets.'),
    ('max_lines',                300,  'Chunks with more lines give no triplets.'),
    ('min_docstring_words',      4,    'Docstrings with fewer words say too little to be searched by.'),
    ('max_docstring_words',      300,  'Docstrings with more words are manuals.'),
    ('exclude_tests',            1,    '1: chunks that stand only in test files give no triplets.'),
    ('length_ratio',             2.5,  'A negative has at most this many times the tokens of the positive, and at least 1/this.'),
    ('docstring_negatives',      2,    'Hard negatives for each docstring, the hardest first.'),
    ('code_positive_min',        0.5,  'Least Jaccard of anchor and positive in triplets_code (not below the pairs'' own threshold).'),
    ('code_positives',           1,    'Positives for each anchor of triplets_code, the nearest first.'),
    ('code_negative_max',        0.2,  'Most Jaccard of anchor and negative in triplets_code.'),
    ('random_candidates',        8,    'Chunks of like length that are tried as negatives for each anchor.');

-- The token order of the join: fixed once given, rare tokens first. Any fixed order is correct; rarity is for speed.
CREATE TABLE jaccard_ranks (
    token_id integer PRIMARY KEY,
    rank     integer NOT NULL UNIQUE
);

-- One token set a chunk, in the forms that the join's filters need.
CREATE TABLE jaccard_sets (
    chunk_id bigint PRIMARY KEY REFERENCES code_chunks ON DELETE CASCADE,
    n        integer NOT NULL,
    ranks    integer[] NOT NULL,                       -- ascending
    members  sparsevec NOT NULL,                       -- the same set, each 1: -(a <#> b) is the intersection's size
    sketch   bit(256) NOT NULL,                        -- xor of a bit for each rank: bounds the symmetric difference
    paired   boolean NOT NULL DEFAULT false            -- whether its pairs are in candidate_pairs
);
CREATE INDEX jaccard_sets_unpaired_idx ON jaccard_sets (chunk_id) WHERE NOT paired;

-- The prefixes: two sets with Jaccard ≥ t share a token among these.
CREATE TABLE jaccard_prefixes (
    rank     integer NOT NULL,
    n        integer NOT NULL,
    chunk_id bigint NOT NULL REFERENCES jaccard_sets ON DELETE CASCADE,
    position integer NOT NULL,
    sketch   bit(256) NOT NULL
);
CREATE INDEX jaccard_prefixes_rank_idx ON jaccard_prefixes (rank, n) INCLUDE (chunk_id, position, sketch);
CREATE INDEX jaccard_prefixes_chunk_id_idx ON jaccard_prefixes (chunk_id);

-- Each run of the join: with which threshold, over how much.
CREATE TABLE pair_runs (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    min_jaccard  double precision NOT NULL,
    chunks       bigint NOT NULL,                      -- sets whose pairs were looked for in this run
    pairs        bigint NOT NULL,                      -- pairs found in this run
    seconds      double precision NOT NULL,
    finished_at  timestamptz NOT NULL DEFAULT now()
);

-- Which split a chunk is in. Null: its copies or places straddle splits, so it is in none; reason says so.
CREATE TABLE chunk_splits (
    chunk_id bigint PRIMARY KEY REFERENCES code_chunks ON DELETE CASCADE,
    cluster  bytea NOT NULL,                           -- the least sha256 among its near-duplicates
    split    text CHECK (split IN ('train', 'validation', 'test')),
    reason   text
);
CREATE INDEX chunk_splits_split_idx ON chunk_splits (split);

-- The triplets by id; the views add the texts.
CREATE TABLE triplet_candidates (
    ordinal          bigint PRIMARY KEY,               -- a fixed order that depends on content and seed alone
    kind             text   NOT NULL CHECK (kind IN ('code', 'docstring')),
    split            text   NOT NULL,
    anchor_id        bigint NOT NULL REFERENCES code_chunks ON DELETE CASCADE,
    positive_id      bigint NOT NULL REFERENCES code_chunks ON DELETE CASCADE,
    negative_id      bigint NOT NULL REFERENCES code_chunks ON DELETE CASCADE,
    positive_jaccard double precision NOT NULL,
    negative_jaccard double precision NOT NULL,
    rule             text   NOT NULL
);
CREATE INDEX triplet_candidates_kind_idx ON triplet_candidates (kind, ordinal);
CREATE INDEX triplet_candidates_anchor_id_idx ON triplet_candidates (anchor_id);
CREATE INDEX triplet_candidates_positive_id_idx ON triplet_candidates (positive_id);
CREATE INDEX triplet_candidates_negative_id_idx ON triplet_candidates (negative_id);
