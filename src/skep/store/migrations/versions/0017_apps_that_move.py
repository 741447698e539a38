"""Disks that an app which moves is about to have, or has left.

Revision ID: 0017
Revises: 0016
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None
serves = "0005"


def upgrade() -> None:
    op.add_column("disks", sa.Column("side", sa.Text(), nullable=False, server_default=""))
