"""Endpoints whose requests wake their service.

Revision ID: 0015
Revises: 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None
serves = "0005"


def upgrade() -> None:
    op.add_column("endpoints", sa.Column("wakes", sa.Boolean(), nullable=False, server_default=sa.false()))
