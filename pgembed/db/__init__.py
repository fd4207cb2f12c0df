"""The database: connections, migrations, named queries, the embedded server."""
