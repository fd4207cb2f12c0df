"""Alembic's entry: revisions run in one transaction, in schema pgembed, with a version table of their own there."""

from alembic import context
from pgembed.db.migrations import SCHEMA

# CREATE SCHEMA IF NOT EXISTS asks for the right to create one even where there is one. The extension goes where the
# role's search_path says, but not into the schema that `migrate --down base` drops. Then search_path holds pgembed's
# schema and pgvector's, so that functions can capture it (SET search_path FROM CURRENT) wherever the extension stands.
_PREPARE = """
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_namespace WHERE nspname = 'pgembed') THEN
        CREATE SCHEMA pgembed;
    END IF;
END $$;
SELECT set_config('search_path',
                  coalesce((SELECT string_agg(quote_ident(s.name), ', ' ORDER BY s.place)
                              FROM unnest(current_schemas(false)) WITH ORDINALITY AS s (name, place)
                             WHERE s.name <> 'pgembed'), 'public'), true);
CREATE EXTENSION IF NOT EXISTS vector;
SELECT set_config('search_path',
                  format('pgembed, %I, pg_temp', (SELECT n.nspname FROM pg_extension e
                                                    JOIN pg_namespace n ON n.oid = e.extnamespace
                                                   WHERE e.extname = 'vector')), true);
"""


def _run(**how: object) -> None:
    context.configure(version_table_schema=SCHEMA, transactional_ddl=True, **how)
    with context.begin_transaction():
        if context.is_offline_mode():
            context.get_context().impl.static_output(_PREPARE)
        else:
            context.get_context().connection.exec_driver_sql(_PREPARE, execution_options={"no_parameters": True})
        context.run_migrations()


if context.is_offline_mode():
    _run(dialect_name="postgresql")
else:
    _run(connection=context.config.attributes["connection"])
