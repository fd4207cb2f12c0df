"""Chunks and sets are held between the join and its commit; the estimate does without a join of half the sample."""

from alembic import op
from pgembed.db.migrations import apply_sql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply_sql(op, "functions/jaccard_hold.v01.sql")
    apply_sql(op, "functions/drop_pair_estimate.v01.sql")
    apply_sql(op, "functions/pair_estimate.v04.sql")


def downgrade() -> None:
    apply_sql(op, "functions/drop_jaccard_hold.v01.sql")
    apply_sql(op, "functions/drop_jaccard.v03.sql")
    apply_sql(op, "functions/jaccard.v03.sql")
    apply_sql(op, "functions/drop_pair_estimate.v01.sql")
    apply_sql(op, "functions/pair_estimate.v03.sql")
