"""Many hosts: pools, what is wanted with a host and when it was heard of; ports are published on many hosts.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pools",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("cpu_overcommit", sa.Float(), nullable=False),
        sa.Column("memory_overcommit", sa.Float(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=True),
        sa.Column("labels", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["zone"], ["zones.name"], name=op.f("fk_pools_zone")),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_pools_tenant_id")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_pools")),
    )
    # By hand: Alembic adds the reference in a statement of its own, which SQLite does not have.
    op.execute("ALTER TABLE hosts ADD COLUMN pool TEXT CONSTRAINT fk_hosts_pool REFERENCES pools (name)")
    for column in (
        sa.Column("intent", sa.Text(), server_default="active", nullable=False),
        sa.Column("labels", sa.Text(), server_default="{}", nullable=False),
        sa.Column("cpu_overcommit", sa.Float(), nullable=True),
        sa.Column("memory_overcommit", sa.Float(), nullable=True),
        sa.Column("underlay", sa.Text(), server_default="", nullable=False),
        sa.Column("address", sa.Text(), server_default="", nullable=False),
        sa.Column("certificate", sa.Text(), nullable=True),
        sa.Column("version", sa.Text(), server_default="", nullable=False),
        sa.Column("load", sa.Text(), server_default="{}", nullable=False),
        sa.Column("seen", sa.Float(), nullable=True),
        sa.Column("lease_expires", sa.Float(), nullable=True),
    ):
        op.add_column("hosts", column)
    _give_every_zone_a_pool()
    _publish_on_every_host()


def _give_every_zone_a_pool() -> None:
    """Named as the zone; its hosts are in it."""
    op.execute(
        "INSERT INTO pools (name, zone, cpu_overcommit, memory_overcommit, tenant_id, labels) "
        "SELECT name, name, 8.0, 4.0, NULL, '{}' FROM zones"
    )
    op.execute("UPDATE hosts SET pool = zone")


def _publish_on_every_host() -> None:
    """A published port is the service's on whichever hosts it runs.  Nothing refers to this table."""
    with op.batch_alter_table("published_ports") as batch_op:
        batch_op.drop_constraint(op.f("uq_published_ports_host_host_ip_protocol_published"), type_="unique")
        batch_op.drop_constraint(op.f("fk_published_ports_host"), type_="foreignkey")
        batch_op.drop_column("host")
        batch_op.create_unique_constraint(
            op.f("uq_published_ports_host_ip_protocol_published"), ["host_ip", "protocol", "published"]
        )
