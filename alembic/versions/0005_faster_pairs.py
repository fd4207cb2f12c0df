"""The Jaccard join, faster: finer buckets of sizes, ranks by array, keys held by statement."""

from alembic import op
from pgembed.db.migrations import apply_sql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply_sql(op, "functions/drop_jaccard.v01.sql")
    apply_sql(op, "tables/set_wise_keys.v01.sql")
    apply_sql(op, "functions/jaccard.v02.sql")
    apply_sql(op, "functions/pair_estimate.v02.sql")


def downgrade() -> None:
    apply_sql(op, "functions/drop_pair_estimate.v01.sql")
    apply_sql(op, "functions/drop_jaccard.v01.sql")
    apply_sql(op, "tables/drop_set_wise_keys.v01.sql")
    apply_sql(op, "functions/jaccard.v01.sql")
    apply_sql(op, "functions/pair_estimate.v01.sql")
