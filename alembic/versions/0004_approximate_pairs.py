"""Approximate pairs: MinHash bands, and what a run of the join will cost."""

from alembic import op
from pgembed.db.migrations import apply_sql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply_sql(op, "tables/approximate_pairs.v01.sql")
    apply_sql(op, "functions/approximate_pairs.v01.sql")
    apply_sql(op, "functions/pair_estimate.v01.sql")


def downgrade() -> None:
    apply_sql(op, "tables/drop_approximate_pairs.v01.sql")
