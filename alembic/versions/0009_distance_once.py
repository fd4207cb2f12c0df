"""Each distance of a search is computed once a row, not twice."""

from alembic import op
from pgembed.db.migrations import apply_sql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply_sql(op, "functions/search_strategy.v02.sql")


def downgrade() -> None:
    apply_sql(op, "functions/drop_search_strategy.v01.sql")
    apply_sql(op, "functions/search_strategy.v01.sql")
