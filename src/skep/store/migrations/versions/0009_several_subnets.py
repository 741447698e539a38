"""Networks of several subnets.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
serves = "0005"


def upgrade() -> None:
    op.add_column("networks", sa.Column("more", sa.Text(), nullable=False, server_default="[]"))
