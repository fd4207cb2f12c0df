-- What was ingested before there was a search by words: the tokens of its bodies. The next ingest adds the docstrings'.
INSERT INTO lexical_documents (chunk_id, token_ids, described)
SELECT id, token_ids, coalesce(docstring, '') = '' AND symbol = '' FROM code_chunks;
SELECT refresh_lexical_statistics();
