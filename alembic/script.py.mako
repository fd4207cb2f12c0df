"""${message}"""

from alembic import op

from pgembed.db.migrations import apply_sql

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    apply_sql(op, "…")


def downgrade() -> None:
    ${downgrades if downgrades else "op.execute('…')"}
