-- What stands in schema pgembed and what depends on it, from the catalogue. Reads what every role may read.

-- name: schema_objects
-- The types of arguments are written as sql/schema.sql writes them: those of pg_catalog bare, pgvector's in public.
SELECT i.type,
       replace(replace(replace(i.identity, 'pg_catalog.', ''), '(' || v.schema || '.vector', '(public.vector'),
               ',' || v.schema || '.vector', ',public.vector'),
       d.classid, d.objid
  FROM pg_depend d
 CROSS JOIN LATERAL pg_identify_object(d.classid, d.objid, 0) i
 CROSS JOIN (SELECT coalesce((SELECT quote_ident(n.nspname)
                                FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
                               WHERE e.extname = 'vector'), 'public') AS schema) v
 WHERE d.refclassid = 'pg_namespace'::regclass
   AND d.refobjid = (SELECT n.oid FROM pg_namespace n WHERE n.nspname = 'pgembed')
   AND d.deptype = 'n'
   AND i.identity IS NOT NULL
   -- a member of an extension, or a sequence of a column
   AND NOT EXISTS (SELECT FROM pg_depend p
                    WHERE p.classid = d.classid AND p.objid = d.objid
                      AND (p.deptype = 'e' OR p.deptype IN ('a', 'i') AND p.refclassid = 'pg_class'::regclass
                                              AND p.refobjsubid > 0
                                              AND i.type = 'sequence'));

-- name: dependent_objects
-- What DROP would refuse for, or take along in silence (a partition, a sequence), and is none of %(oids)s: a rule stands
-- for its view; what is a part of one of ours (a constraint, a trigger, an index, statistics) goes with it by right.
WITH ours AS (
    SELECT * FROM unnest(%(catalogues)s::oid[], %(oids)s::oid[]) AS o (catalogue, oid)
), reached AS (  -- with their row types and the arrays of these
    SELECT catalogue, oid FROM ours
    UNION SELECT 'pg_type'::regclass, t.oid
      FROM ours o JOIN pg_class c ON c.oid = o.oid AND o.catalogue = 'pg_class'::regclass
      JOIN pg_type t ON t.typrelid = c.oid OR t.typelem = c.reltype AND t.typcategory = 'A'
), found AS (
    SELECT d.classid, d.objid,
           CASE d.classid
               WHEN 'pg_rewrite'::regclass THEN (SELECT r.ev_class FROM pg_rewrite r WHERE r.oid = d.objid)
               WHEN 'pg_constraint'::regclass THEN (SELECT c.conrelid FROM pg_constraint c WHERE c.oid = d.objid)
               WHEN 'pg_attrdef'::regclass THEN (SELECT a.adrelid FROM pg_attrdef a WHERE a.oid = d.objid)
               WHEN 'pg_trigger'::regclass THEN (SELECT t.tgrelid FROM pg_trigger t WHERE t.oid = d.objid)
               WHEN 'pg_policy'::regclass THEN (SELECT p.polrelid FROM pg_policy p WHERE p.oid = d.objid)
               WHEN 'pg_statistic_ext'::regclass THEN (SELECT s.stxrelid FROM pg_statistic_ext s WHERE s.oid = d.objid)
               WHEN 'pg_publication_rel'::regclass THEN d.refobjid
               WHEN 'pg_class'::regclass
                   THEN coalesce((SELECT i.indrelid FROM pg_index i WHERE i.indexrelid = d.objid), d.objid)
           END AS relation
      FROM pg_depend d JOIN reached r ON r.catalogue = d.refclassid AND r.oid = d.refobjid
     WHERE d.deptype IN ('n', 'a')
)
SELECT DISTINCT i.type, i.identity
  FROM found f
 CROSS JOIN LATERAL pg_identify_object(CASE f.classid WHEN 'pg_rewrite'::regclass THEN 'pg_class'::regclass ELSE f.classid END,
                                       CASE f.classid WHEN 'pg_rewrite'::regclass THEN f.relation ELSE f.objid END, 0) i
 WHERE NOT EXISTS (SELECT FROM ours o WHERE o.catalogue = f.classid AND o.oid = f.objid)
   AND (f.relation IS NULL
        OR NOT EXISTS (SELECT FROM ours o WHERE o.catalogue = 'pg_class'::regclass AND o.oid = f.relation))
 ORDER BY 1, 2;

-- name: pgembed_owner
-- Who owns the schema's tables, and whether this role may do what an owner may.
SELECT quote_ident(pg_get_userbyid(c.relowner)), pg_has_role(c.relowner, 'USAGE'), quote_ident(current_user)
  FROM pg_class c
 WHERE c.relnamespace = (SELECT n.oid FROM pg_namespace n WHERE n.nspname = 'pgembed')
   AND c.relname = 'alembic_version';

-- name: schema_owner
-- Who owns the schema, whether this role may drop it as an owner may, and whether it could make it again.
SELECT quote_ident(pg_get_userbyid(n.nspowner)), pg_has_role(n.nspowner, 'USAGE'),
       has_database_privilege(current_database(), 'CREATE')
  FROM pg_namespace n WHERE n.nspname = 'pgembed';

-- name: left_behind
-- What is of use to others, or of the whole server, and so stays when the schema goes.
SELECT ARRAY(SELECT r.rolname::text FROM pg_roles r
              WHERE r.rolname IN ('pgembed_reader', 'pgembed_writer') ORDER BY r.rolname),
       EXISTS (SELECT FROM pg_extension e WHERE e.extname = 'vector'),
       EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = 'pgembed_tune');
