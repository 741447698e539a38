"""IPv6: an address of that family for ports, and reservations of such addresses.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None
serves = "0005"


def upgrade() -> None:
    op.add_column("ports", sa.Column("address6", sa.Text()))
    op.create_index("ix_ports_network_id_address6", "ports", ["network_id", "address6"], unique=True)
    op.create_table(
        "reservations6",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("network_id", sa.Text(), nullable=False),
        sa.Column("first", sa.Text(), nullable=False),
        sa.Column("last", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_reservations6_tenant_id")),
        sa.ForeignKeyConstraint(
            ["network_id"], ["networks.id"], name=op.f("fk_reservations6_network_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reservations6")),
        sa.UniqueConstraint("network_id", "first", name=op.f("uq_reservations6_network_id_first")),
    )
    op.create_index(op.f("ix_reservations6_tenant_id"), "reservations6", ["tenant_id"])
