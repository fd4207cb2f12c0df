"""Training: the health of each step, validations, lineage."""

from alembic import op
from pgembed.db.migrations import apply_sql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply_sql(op, "tables/training_metrics.v02.sql")
    apply_sql(op, "views/training_lineage.v01.sql")


def downgrade() -> None:
    apply_sql(op, "views/drop_training_lineage.v01.sql")
    apply_sql(op, "tables/drop_training_metrics.v02.sql")
