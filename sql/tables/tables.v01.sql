-- Tables of pgembed, version 1. Frozen once released: a change is a new file and a new revision.
-- Everything lives in schema pgembed; the migration has set search_path to it and to pgvector's schema.

-- A body of code.
CREATE TABLE sources (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL UNIQUE,
    root        text NOT NULL,
    revision    text,                                  -- git commit at ingest, where there is one
    created_at  timestamptz NOT NULL DEFAULT now(),
    ingested_at timestamptz                            -- end of the last complete ingest
);

-- A file as it was last read: what lets a second ingest touch only what changed.
CREATE TABLE source_files (
    source_id   bigint NOT NULL REFERENCES sources ON DELETE CASCADE,
    path        text   NOT NULL,                       -- relative to the source's root, '/' between the parts
    sha256      bytea  NOT NULL CHECK (octet_length(sha256) = 32),
    size_bytes  bigint NOT NULL,
    modified_ns bigint NOT NULL,
    language    text,
    chunker     text   NOT NULL,                       -- name and version: another chunker reads the file again
    PRIMARY KEY (source_id, path)
);

-- One distinct piece of code, content-addressed.
CREATE TABLE code_chunks (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sha256      bytea  NOT NULL UNIQUE CHECK (octet_length(sha256) = 32),
    language    text   NOT NULL,
    kind        text   NOT NULL,                       -- function, method, class, window
    symbol      text   NOT NULL DEFAULT '',            -- the name as the code says it, unqualified
    content     text   NOT NULL,
    docstring   text,                                  -- its text alone, dedented; null where there is none
    body        text   NOT NULL,                       -- content without the docstring
    token_ids   integer[] NOT NULL,                    -- distinct tokens of body, ascending ids
    token_count integer GENERATED ALWAYS AS (cardinality(token_ids)) STORED,
    line_count  integer NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX code_chunks_language_idx ON code_chunks (language);

-- Where a chunk stands. The same code in ten places is one chunk with ten locations.
CREATE TABLE chunk_locations (
    chunk_id   bigint  NOT NULL REFERENCES code_chunks ON DELETE CASCADE,
    source_id  bigint  NOT NULL,
    path       text    NOT NULL,
    start_line integer NOT NULL,                       -- from 1
    end_line   integer NOT NULL,                       -- inclusive
    symbol     text    NOT NULL DEFAULT '',            -- the qualified name at this place (Class.method)
    PRIMARY KEY (source_id, path, start_line, chunk_id),
    FOREIGN KEY (source_id, path) REFERENCES source_files ON DELETE CASCADE
);
CREATE INDEX chunk_locations_chunk_id_idx ON chunk_locations (chunk_id);

-- The vocabulary of the token sets.
CREATE TABLE tokens (
    id                 integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    token              text    NOT NULL UNIQUE,
    document_frequency integer NOT NULL DEFAULT 0      -- chunks that hold it, as of the last ingest
);

-- Pairs of chunks that look alike.
CREATE TABLE candidate_pairs (
    chunk_a      bigint  NOT NULL REFERENCES code_chunks ON DELETE CASCADE,
    chunk_b      bigint  NOT NULL REFERENCES code_chunks ON DELETE CASCADE,
    intersection integer NOT NULL,                     -- tokens in both
    jaccard      double precision NOT NULL,
    PRIMARY KEY (chunk_a, chunk_b),
    CHECK (chunk_a < chunk_b)
);
CREATE INDEX candidate_pairs_chunk_b_idx ON candidate_pairs (chunk_b);

-- What an encoder is and which weights it holds.
CREATE TABLE encoders (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text  NOT NULL,
    spec        jsonb NOT NULL,                        -- towers, pooling, prompts, slots
    fingerprint text  NOT NULL UNIQUE,                 -- sha256 over spec and weights
    licence     text  NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE training_runs (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    state            text   NOT NULL CHECK (state IN ('running', 'finished', 'failed')),
    view             text   NOT NULL,
    filters          jsonb  NOT NULL DEFAULT '{}',
    seed             bigint NOT NULL,
    hyperparameters  jsonb  NOT NULL,
    data_fingerprint text   NOT NULL,
    base_encoder_id  bigint NOT NULL REFERENCES encoders,
    encoder_id       bigint REFERENCES encoders,       -- what came out
    checkpoint_path  text,
    package_version  text   NOT NULL,
    metrics          jsonb  NOT NULL DEFAULT '{}',
    error            text,
    started_at       timestamptz NOT NULL DEFAULT now(),
    finished_at      timestamptz
);

CREATE TABLE training_metrics (
    run_id              bigint  NOT NULL REFERENCES training_runs ON DELETE CASCADE,
    step                integer NOT NULL,
    loss                double precision NOT NULL,
    gradient_norm       double precision NOT NULL,     -- before clipping
    learning_rate       double precision NOT NULL,
    zero_loss_share     double precision NOT NULL,     -- triplets already past the margin
    triplets_per_second double precision NOT NULL,
    recorded_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, step)
);

-- One complete set of vectors: one encoder over every chunk.
CREATE TABLE generations (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    encoder_id   bigint NOT NULL REFERENCES encoders,
    onnx_path    text   NOT NULL,                      -- the artefact's folder
    onnx_sha256  text   NOT NULL,
    dims         integer NOT NULL,
    state        text   NOT NULL DEFAULT 'filling'
                 CHECK (state IN ('filling', 'indexing', 'ready', 'active', 'retired', 'failed')),
    index_method text   NOT NULL DEFAULT 'ivfflat' CHECK (index_method IN ('ivfflat', 'hnsw', 'binary')),
    lists        integer,
    probes       integer,                              -- the least that reach the target recall
    index_recall double precision,                     -- recall@10 at those probes, on a sample
    row_count    bigint,
    metrics      jsonb  NOT NULL DEFAULT '{}',
    error        text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    filled_at    timestamptz,
    indexed_at   timestamptz,
    activated_at timestamptz,
    retired_at   timestamptz
);
CREATE UNIQUE INDEX generations_one_active_idx ON generations (state) WHERE state = 'active';

-- The pointer that search follows: one row at most. Activating and rolling back update it.
CREATE TABLE active_generation (
    only_row      boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    generation_id bigint NOT NULL REFERENCES generations,
    previous_id   bigint REFERENCES generations ON DELETE SET NULL,
    activated_at  timestamptz NOT NULL DEFAULT now()
);

-- The vectors. A generation is a partition, filled as a plain table, indexed, and then attached.
CREATE TABLE code_embeddings (
    generation_id bigint NOT NULL,
    chunk_id      bigint NOT NULL REFERENCES code_chunks ON DELETE CASCADE,
    embedding     vector(2560) NOT NULL,
    PRIMARY KEY (generation_id, chunk_id)
) PARTITION BY LIST (generation_id);

-- IVFFLAT takes at most 2,000 dimensions of vector, and 4,000 of halfvec: hence the cast, which a query must
-- repeat to the letter. The parent holds no rows; each partition brings an index that was built when full.
CREATE INDEX code_embeddings_embedding_idx ON code_embeddings
    USING ivfflat ((embedding::halfvec(2560)) halfvec_cosine_ops) WITH (lists = 100);

CREATE TABLE evaluations (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    encoder_id    bigint NOT NULL REFERENCES encoders,
    generation_id bigint REFERENCES generations ON DELETE CASCADE,
    dataset       text   NOT NULL,                     -- 'held-out' or the name of a BEIR folder
    fingerprint   text   NOT NULL,                     -- sha256 over queries, documents and judgements
    documents     integer NOT NULL,
    queries       integer NOT NULL,
    settings      jsonb  NOT NULL,
    metrics       jsonb  NOT NULL,                     -- {"ndcg@10": {"mean":…, "low":…, "high":…}, …}
    per_query     jsonb  NOT NULL,                     -- {"query id": {"ndcg@10":…, …}}: what a paired test needs
    created_at    timestamptz NOT NULL DEFAULT now()
);

-- Input that could not be used. Nothing is dropped silently.
CREATE TABLE rejected_items (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stage      text NOT NULL,                          -- ingest, reindex, …
    source_id  bigint REFERENCES sources ON DELETE CASCADE,
    path       text,
    chunk_id   bigint REFERENCES code_chunks ON DELETE CASCADE,
    reason     text NOT NULL,                          -- a short fixed word: nul_bytes, too_large, …
    detail     text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE NULLS NOT DISTINCT (stage, source_id, path, chunk_id, reason)
);
