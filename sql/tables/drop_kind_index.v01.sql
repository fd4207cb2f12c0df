DROP INDEX code_chunks_kind_idx;
