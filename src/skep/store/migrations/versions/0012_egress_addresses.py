"""Addresses by which networks leave to the outside.

A process of the older schema knows nothing of them: what it tells hosts is put right by the next that does.

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None
serves = "0005"


def upgrade() -> None:
    op.create_table(
        "egress_addresses",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("address", sa.BigInteger(), nullable=False),
        sa.Column("tenant_id", sa.Text()),
        sa.Column("network_id", sa.Text()),
        sa.Column("host", sa.Text()),
        sa.Column("created", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["zone"], ["zones.name"], name=op.f("fk_egress_addresses_zone")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_egress_addresses_tenant_id")),
        sa.ForeignKeyConstraint(
            ["network_id"],
            ["networks.id"],
            name=op.f("fk_egress_addresses_network_id"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["host"], ["hosts.name"], name=op.f("fk_egress_addresses_host"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_egress_addresses")),
        sa.UniqueConstraint("address", name=op.f("uq_egress_addresses_address")),
        sa.UniqueConstraint("network_id", name=op.f("uq_egress_addresses_network_id")),
    )
    op.create_index(op.f("ix_egress_addresses_tenant_id"), "egress_addresses", ["tenant_id"])
