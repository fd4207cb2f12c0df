-- Questions about the server itself.

-- name: preflight
-- Everything that the schema needs of the server, in one row.
SELECT current_setting('server_version_num')::integer,
       (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
       (SELECT default_version FROM pg_available_extensions WHERE name = 'vector'),
       -- who may create it depends on how it was built: trusted asks for CREATE on the database, else a superuser
       EXISTS (SELECT FROM pg_available_extension_versions v
                WHERE v.name = 'vector'
                  AND (NOT v.superuser OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
                       OR (v.trusted AND has_database_privilege(current_database(), 'CREATE')))),
       -- it goes into the first schema of the search_path but pgembed, else into public: see alembic/env.py
       EXISTS (SELECT FROM pg_namespace n
                WHERE n.nspname <> 'pgembed' AND (n.nspname = ANY (current_schemas(false)) OR n.nspname = 'public')),
       -- where it stands, when that schema is closed to this role: its types are then not found
       (SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
         WHERE e.extname = 'vector' AND NOT has_schema_privilege(n.oid, 'USAGE')),
       quote_ident(current_user), pg_is_in_recovery();

-- name: preflight_schema
-- Who may do what with schema pgembed, and whether it is one that pgembed made: an application may keep a version table of
-- its own there, and its revisions may have the same numbers. From the catalogue, since the schema may be closed to this role.
SELECT quote_ident(current_user), quote_ident(current_database()),
       has_database_privilege(current_database(), 'CREATE'),
       quote_ident(pg_get_userbyid(n.nspowner)),
       has_schema_privilege(n.oid, 'USAGE') AND has_schema_privilege(n.oid, 'CREATE'),
       EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'alembic_version'),
       EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid AND c.relname = 'code_chunks')
  FROM (SELECT) AS one LEFT JOIN pg_namespace n ON n.nspname = 'pgembed';

-- name: schema_revision
-- The revision that the schema stands at; the table is there only after the first migration.
SELECT version_num FROM pgembed.alembic_version;

-- name: vector_schema
SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'vector';

-- name: this_role
SELECT quote_ident(current_user);

-- name: roles_missing
SELECT wanted FROM unnest(%(roles)s::text[]) WITH ORDINALITY AS w (wanted, place)
 WHERE NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = wanted) ORDER BY place;

-- name: roles_shut_out
-- Which of the roles cannot enter schema pgembed: GRANT by one who is not its owner is a warning and does nothing.
SELECT wanted FROM unnest(%(roles)s::text[]) WITH ORDINALITY AS w (wanted, place)
 WHERE NOT has_schema_privilege(wanted, 'pgembed', 'USAGE') ORDER BY place;

-- name: roles_not_to_give
-- Which of the roles this one may not grant to others. Before version 16 CREATEROLE is enough.
SELECT r.rolname::text
  FROM pg_roles r, pg_roles me
 WHERE r.rolname = ANY (%(roles)s) AND me.rolname = current_user
   AND NOT pg_has_role(r.oid, 'MEMBER WITH ADMIN OPTION')
   AND NOT (me.rolcreaterole AND current_setting('server_version_num')::integer < 160000)
 ORDER BY 1;

-- name: role_members
SELECT r.rolname::text, m.rolname::text
  FROM pg_auth_members a
  JOIN pg_roles r ON r.oid = a.roleid
  JOIN pg_roles m ON m.oid = a.member
 WHERE r.rolname::text = ANY (%(roles)s::text[])
 ORDER BY 1, 2;
