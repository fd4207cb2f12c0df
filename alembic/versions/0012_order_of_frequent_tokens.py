"""The Jaccard join in two thirds of the time: only frequent tokens have a rank, and sets are stored without theirs."""

from alembic import op
from pgembed.db.migrations import apply_sql

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply_sql(op, "functions/drop_jaccard.v01.sql")
    apply_sql(op, "tables/token_order.v01.sql")
    apply_sql(op, "functions/jaccard.v03.sql")
    apply_sql(op, "functions/approximate_pairs.v02.sql")
    apply_sql(op, "functions/pair_estimate.v03.sql")


def downgrade() -> None:
    apply_sql(op, "functions/drop_approximate_pairs.v02.sql")
    apply_sql(op, "functions/drop_jaccard.v03.sql")
    apply_sql(op, "tables/drop_token_order.v01.sql")
    apply_sql(op, "functions/jaccard.v02.sql")
    apply_sql(op, "functions/jaccard_prepare.v03.sql")
    apply_sql(op, "functions/approximate_pairs.v01.sql")
    apply_sql(op, "functions/pair_estimate.v02.sql")
