"""Zones on Kubernetes clusters.

Revision ID: 0016
Revises: 0015
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None
serves = "0005"


def upgrade() -> None:
    op.create_table(
        "clusters",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("server", sa.Text(), nullable=False),
        sa.Column("context", sa.Text(), nullable=False),
        sa.Column("sealed_kubeconfig", sa.LargeBinary(), nullable=False),
        sa.Column("registry", sa.Text(), nullable=False),
        sa.Column("sealed_login", sa.LargeBinary(), nullable=False),
        sa.Column("lacks", sa.Text(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["zone"], ["zones.name"], name="fk_clusters_zone"),
        sa.ForeignKeyConstraint(["host"], ["hosts.name"], name="fk_clusters_host"),
        sa.PrimaryKeyConstraint("id", name="pk_clusters"),
        sa.UniqueConstraint("zone", name="uq_clusters_zone"),
        sa.UniqueConstraint("host", name="uq_clusters_host"),
    )
