"""The tables."""

from alembic import op
from pgembed.db.migrations import apply_sql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply_sql(op, "tables/tables.v01.sql")


def downgrade() -> None:
    # in the order of their dependencies; generations bring partitions and half-filled tables along
    apply_sql(op, "tables/drop_tables.v01.sql")
