"""Networks of several subnets.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
serves = "0005"


def upgrade() -> None:
    op.add_column("networks", sa.Column("more", sa.Text(), nullable=False, server_default="[]"))
