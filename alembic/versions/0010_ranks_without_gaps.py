"""Sets are made as fast where tokens have no rank, and none from a token that has none yet."""

from alembic import op
from pgembed.db.migrations import apply_sql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply_sql(op, "functions/jaccard_prepare.v03.sql")


def downgrade() -> None:
    apply_sql(op, "functions/jaccard_prepare.v02.sql")
