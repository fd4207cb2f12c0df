"""Tell who listens that chunks were added: what `reindex --watch` waits for."""

from alembic import op
from pgembed.db.migrations import apply_sql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply_sql(op, "functions/notify_chunks.v01.sql")


def downgrade() -> None:
    apply_sql(op, "functions/drop_notify_chunks.v01.sql")
