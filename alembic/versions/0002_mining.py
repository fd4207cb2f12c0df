"""Mining: the Jaccard join, splits, and the triplet views."""

from alembic import op
from pgembed.db.migrations import apply_sql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply_sql(op, "tables/mining.v01.sql")
    apply_sql(op, "functions/jaccard.v01.sql")
    apply_sql(op, "functions/triplets.v01.sql")
    apply_sql(op, "views/triplets.v01.sql")
    apply_sql(op, "views/chunk_eligibility.v01.sql")
    apply_sql(op, "functions/triplet_reasons.v01.sql")


def downgrade() -> None:
    apply_sql(op, "tables/drop_mining.v01.sql")
