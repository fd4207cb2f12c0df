"""Search: one function for people who bring a vector, and what it stands on."""

from alembic import op
from pgembed.db.migrations import apply_sql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply_sql(op, "functions/path_patterns.v01.sql")
    apply_sql(op, "functions/source_id.v01.sql")
    apply_sql(op, "functions/swap_settings.v01.sql")
    apply_sql(op, "functions/search_strategy.v01.sql")
    apply_sql(op, "functions/nearest.v01.sql")
    apply_sql(op, "functions/search.v01.sql")
    apply_sql(op, "functions/search_plan.v01.sql")


def downgrade() -> None:
    apply_sql(op, "functions/drop_search.v01.sql")
