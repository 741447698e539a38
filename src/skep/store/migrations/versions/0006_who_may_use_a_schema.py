"""Which older processes may go on with the schema, so that skep is upgraded one process at a time.

Revision ID: 0006
Revises: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None
serves = "0005"


def upgrade() -> None:
    op.create_table(
        "schema_serves",
        sa.Column("revision", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("revision", name=op.f("pk_schema_serves")),
    )
