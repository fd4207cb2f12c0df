-- Tables of mining, version 1: what it is told, what the Jaccard join prepares, and what the triplet views stand on.

-- What mining is told, in numbers. A person may read and UPDATE these; `pgembed triplets --refresh` then applies them.
-- A value outside of its bounds is refused at once (check_mining_setting), settings that contradict each other at the refresh.
CREATE TABLE mining_settings (
    name        text PRIMARY KEY,
    value       double precision NOT NULL,
    least       double precision NOT NULL,
    most        double precision NOT NULL,
    whole       boolean NOT NULL,                      -- only whole numbers
    description text NOT NULL
);
INSERT INTO mining_settings (name, value, least, most, whole, description) VALUES
    ('seed',                 0, -9e15, 9e15, true,
     'Another seed gives other splits, and other choices where several would do.'),
    ('train_share',          0.8, 0, 1, false, 'Share of the files whose code may be trained on.'),
    ('validation_share',     0.1, 0, 1, false,
     'Share of the files, of those that are left, kept for choosing; the rest is the test split.'),
    ('near_duplicate',       0.8, 0.1, 1, false,
     'Jaccard from which two chunks count as copies: never in two splits, never a negative.'),
    ('pairs_min_tokens',     0, 0, 1e6, true,
     'Chunks with fewer distinct tokens are not compared, and are in no split. 0: all are.'),
    ('min_tokens',           5, 0, 1e6, true, 'Chunks with fewer distinct tokens are trivial and give no triplets.'),
    ('max_tokens',           400, 1, 1e6, true, 'Chunks with more distinct tokens give no triplets.'),
    ('min_lines',            2, 0, 1e6, true, 'Chunks with fewer lines give no triplets.'),
    ('max_lines',            300, 1, 1e6, true, 'Chunks with more lines give no triplets.'),
    -- 256: what a regular expression can count
    ('min_docstring_words',  4, 1, 256, true, 'A first paragraph with fewer words says too little to be searched by.'),
    ('max_anchor_words',     60, 1, 256, true, 'The first paragraph of a docstring is the anchor, cut after this many words.'),
    ('length_ratio',         2.5, 1, 1000, false,
     'A negative has at most this many times the tokens of the positive, and at least 1/this.'),
    ('docstring_negatives',  2, 0, 1000, true, 'Triplets for each docstring: its hardest negatives.'),
    ('same_file_candidates', 8, 0, 1000, true, 'Nearest functions of the same file that are tried as negatives.'),
    ('like_length_candidates', 8, 0, 1000, true, 'Chunks next in length that are tried as negatives.'),
    ('code_positive_min',    0.5, 0, 1, false,
     'Least Jaccard of anchor and positive in triplets_code; the pairs'' own threshold is a bound too.'),
    ('code_positives',       1, 0, 1000, true, 'Triplets for each anchor of triplets_code: its nearest look-alikes.'),
    ('code_negative_max',    0.2, 0, 1, false, 'Most Jaccard of anchor and negative in triplets_code.'),
    ('use_vectors',          0, 0, 1, true,
     '1: ask the active generation''s vectors for hard negatives and against false ones. `--by-vectors` sets it.'),
    ('vector_candidates',    8, 0, 1000, true,
     'With vectors: chunks nearest in meaning that are tried as negatives of a docstring.'),
    ('false_negative_margin', 0.05, 0, 1, false,
     'With vectors, code: a negative that scores above (1 - this) of the positive''s score is false.'),
    -- MiniLM on 4,000 real functions: of the negatives above it, the highest 1.7%, nearly all did what the docstring says
    ('false_negative_ceiling', 0.85, 0, 1, false,
     'With vectors, docstring: a negative whose cosine to the described function is above this is false.');

-- What mining leaves out, in patterns (POSIX regular expressions). Add rows, or switch some off.
-- path: a chunk is left out when all places where it stands match. docstring: the chunk gives no anchor.
CREATE TABLE mining_exclusions (
    name    text PRIMARY KEY,
    field   text NOT NULL CHECK (field IN ('path', 'language', 'symbol', 'body', 'docstring')),
    pattern text NOT NULL CHECK ('' ~ pattern IS NOT NULL),  -- one that cannot be read is refused when it is put in
    reason  text NOT NULL,
    enabled boolean NOT NULL DEFAULT true
);
INSERT INTO mining_exclusions (name, field, pattern, reason) VALUES
    ('tests', 'path', '(^|/)(tests?|testing|__tests__|spec)/|(^|/)(test_[^/]*|conftest\.py)$|[._](test|spec)\.[a-z]+$',
     'test code repeats itself, and nobody searches for it'),
    ('generated', 'path', '_pb2(_grpc)?\.pyi?$|\.pb\.(go|cc|h)$|\.min\.js$|(^|/)(generated|autogen)/', 'generated code'),
    ('vendored', 'path', '(^|/)_?(vendor|vendored|third_party|node_modules)/', 'somebody else''s code'),
    ('stubs', 'body', 'raise NotImplementedError|@(abc\.)?abstractmethod|@(typing\.)?overload', 'a stub holds nothing to find'),
    ('notices', 'docstring', '(?i)\m(copyright|all rights reserved|licen[sc]ed under)\M', 'a licence header describes no code'),
    ('references', 'docstring', '(?i)^\s*(see |todo|fixme|inherit|deprecated|\{@inheritdoc\}|docstring inherited)',
     'it refers to another description');

-- Chunks and triplets that a person has marked as bad. By content, so that a mark outlives every refresh and every new
-- ingest. The views leave them out at once; the next refresh puts the next best in their place.
-- block_chunk(chunk_id, reason) and block_triplet(ordinal, reason) write these rows; delete one to take a mark back.
CREATE TABLE chunk_blocks (
    sha256     bytea PRIMARY KEY CHECK (octet_length(sha256) = 32),  -- code_chunks.sha256; in whatever role
    reason     text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE triplet_blocks (
    kind       text  NOT NULL CHECK (kind IN ('code', 'docstring')),
    anchor     bytea NOT NULL CHECK (octet_length(anchor) = 32),      -- code_chunks.sha256 of each
    positive   bytea NOT NULL CHECK (octet_length(positive) = 32),
    negative   bytea NOT NULL CHECK (octet_length(negative) = 32),
    reason     text  NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (anchor, positive, negative, kind)
);

-- The token order of the join, rare tokens first, fixed until the next full run. Any order is right; rarity is for speed.
CREATE TABLE jaccard_ranks (
    token_id integer PRIMARY KEY,
    rank     integer NOT NULL UNIQUE,
    sketch   bit(256) NOT NULL                         -- one bit, chosen by the rank
);

-- One token set a chunk, in the forms that the join's filters need.
CREATE TABLE jaccard_sets (
    chunk_id bigint PRIMARY KEY REFERENCES code_chunks ON DELETE CASCADE,
    n        integer NOT NULL,
    ranks    integer[] NOT NULL,                       -- ascending
    prefix   integer[] NOT NULL,                       -- the first of them: sets with Jaccard ≥ t share one of these
    members  sparsevec,                                -- each 1: -(a <#> b) is |A ∩ B|; null above its 16,000 elements
    sketch   bit(256) NOT NULL                         -- xor over the tokens: bounds the symmetric difference from below
);
CREATE INDEX jaccard_sets_n_idx ON jaccard_sets (n, chunk_id);
-- 8 MB at 100,000 sets, where a table of prefixes with a covering B-tree took 340 MB and four fifths of the preparation
CREATE INDEX jaccard_sets_prefix_idx ON jaccard_sets USING gin (prefix);

-- Sets whose pairs with all others are still to be found.
CREATE TABLE pair_queue (
    chunk_id bigint PRIMARY KEY REFERENCES jaccard_sets ON DELETE CASCADE
);

-- Each run of the join: with which threshold, over how much.
CREATE TABLE pair_runs (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    mode        text NOT NULL CHECK (mode IN ('full', 'incremental', 'raise')),
    state       text NOT NULL CHECK (state IN ('preparing', 'joining', 'finished')),
    min_jaccard double precision NOT NULL,
    min_tokens  integer NOT NULL,
    chunks      bigint NOT NULL DEFAULT 0,             -- sets whose pairs were looked for in this run
    sets        bigint NOT NULL DEFAULT 0,             -- sets there were at its end
    pairs       bigint NOT NULL DEFAULT 0,             -- pairs found in this run
    seconds     double precision NOT NULL DEFAULT 0,   -- of the last process that worked on it
    started_at  timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz
);

-- The slices of a full run: the pairs whose larger set lies above low and up to high, in the order of (n, chunk_id).
CREATE TABLE pair_slices (
    run_id  bigint  NOT NULL REFERENCES pair_runs ON DELETE CASCADE,
    ordinal integer NOT NULL,
    low_n   integer NOT NULL,
    low_id  bigint  NOT NULL,
    high_n  integer NOT NULL,
    high_id bigint  NOT NULL,
    sets    bigint  NOT NULL,
    pairs   bigint,                                    -- null: not done yet
    PRIMARY KEY (run_id, ordinal)
);

-- Which split a chunk is in. Null: it is in none, and reason says why.
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
    rule             text   NOT NULL,
    anchor           text,                             -- docstring: its first paragraph, as the settings cut it
    generation_id    bigint,                           -- whose vectors were asked; it may be gone by now
    positive_score   double precision,                 -- cosine to the anchor's chunk; null where no vector was asked
    negative_score   double precision
);
CREATE INDEX triplet_candidates_kind_idx ON triplet_candidates (kind, ordinal);
CREATE INDEX triplet_candidates_anchor_id_idx ON triplet_candidates (anchor_id);
CREATE INDEX triplet_candidates_positive_id_idx ON triplet_candidates (positive_id);
CREATE INDEX triplet_candidates_negative_id_idx ON triplet_candidates (negative_id);

-- What the triplets were made from: how it is known that they are out of date. At most one row.
CREATE TABLE triplet_state (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    made_at  timestamptz NOT NULL,
    inputs   jsonb NOT NULL,                           -- triplet_inputs() when they were made; "settings" among them
    report   jsonb NOT NULL                            -- triplets, seconds; with vectors: what was read, scored, dropped
);
