"""A search refuses a language, kind or source that does not exist, and says what does."""

from alembic import op
from pgembed.db.migrations import apply_sql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply_sql(op, "tables/kind_index.v01.sql")
    apply_sql(op, "functions/filter_values.v01.sql")
    apply_sql(op, "functions/filter_clause.v02.sql")
    apply_sql(op, "functions/search_strategy.v03.sql")


def downgrade() -> None:
    apply_sql(op, "functions/search_strategy.v02.sql")
    apply_sql(op, "functions/filter_clause.v01.sql")
    apply_sql(op, "functions/drop_filter_values.v01.sql")
    apply_sql(op, "tables/drop_kind_index.v01.sql")
