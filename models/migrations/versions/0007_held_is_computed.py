"""Whether a halt holds an item is computed from the halts; the column was never written."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Drop it."""
    op.execute("ALTER TABLE work_items DROP COLUMN held")


def downgrade() -> None:
    """Bring it back, empty as it was."""
    op.execute("ALTER TABLE work_items ADD COLUMN held boolean NOT NULL DEFAULT false")
