"""Addresses that clusters have to give, and those that replicas in them asked for.

Revision ID: 0018
Revises: 0017
"""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None
serves = "0005"


def upgrade() -> None:
    op.add_column("clusters", sa.Column("ranges", sa.Text(), nullable=False, server_default="[]"))
    op.create_table(
        "fixed_addresses",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("replica_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["host"], ["hosts.name"], name="fk_fixed_addresses_host", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name="fk_fixed_addresses_tenant_id"),
        sa.ForeignKeyConstraint(
            ["replica_id"], ["replicas.id"], name="fk_fixed_addresses_replica_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("host", "address", name="pk_fixed_addresses"),
    )
    op.create_index("ix_fixed_addresses_tenant_id", "fixed_addresses", ["tenant_id"])
    op.create_index("ix_fixed_addresses_replica_id", "fixed_addresses", ["replica_id"])
