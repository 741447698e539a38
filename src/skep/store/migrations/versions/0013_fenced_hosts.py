"""Hosts that are known to be off.

Revision ID: 0013
Revises: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None
serves = "0005"


def upgrade() -> None:
    op.add_column("hosts", sa.Column("fenced", sa.Float(), nullable=True))
