-- Whether there is a chunk of a kind, and which kinds there are, is asked of this index: see filter_values.
CREATE INDEX code_chunks_kind_idx ON code_chunks (kind);
