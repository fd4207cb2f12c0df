"""Search by words and by both: BM25 beside the vectors, fused; copies fold into one hit."""

from alembic import op
from pgembed.db.migrations import apply_sql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply_sql(op, "tables/lexical.v01.sql")
    apply_sql(op, "functions/lexical.v01.sql")
    apply_sql(op, "functions/hybrid_search.v01.sql")
    apply_sql(op, "functions/fill_lexical.v01.sql")


def downgrade() -> None:
    apply_sql(op, "functions/drop_hybrid_search.v01.sql")
    apply_sql(op, "functions/drop_lexical.v01.sql")
    apply_sql(op, "tables/drop_lexical.v01.sql")
