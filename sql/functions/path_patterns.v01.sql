-- path_patterns(glob): the LIKE patterns that a path filter stands for.
--
-- `*` is any run of characters, `/` included; `?` is one character; everything else is itself. A pattern that names a
-- folder takes in all beneath it: 'src/auth', 'src/auth/' and 'src/auth/*' find the same files.
-- Reads and writes nothing.
CREATE FUNCTION path_patterns(glob text) RETURNS text[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path FROM CURRENT
AS $$
    SELECT ARRAY[pattern, pattern || '/%']
      FROM (SELECT translate(regexp_replace(rtrim(glob, '/'), '([\\%_])', '\\\1', 'g'), '*?', '%_')) AS p (pattern);
$$;

COMMENT ON FUNCTION path_patterns(text) IS 'LIKE patterns of a path glob (* any run, ? one character; a folder takes in all beneath it)';
