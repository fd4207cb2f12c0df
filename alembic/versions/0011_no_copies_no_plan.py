"""A hit without copies costs a search no statement of its own to plan."""

from alembic import op
from pgembed.db.migrations import apply_sql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply_sql(op, "functions/copies_of.v02.sql")


def downgrade() -> None:
    apply_sql(op, "functions/copies_of.v01.sql")
