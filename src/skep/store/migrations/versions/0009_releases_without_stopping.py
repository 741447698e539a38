"""Releases without stopping: weights, stand-ins, virtual IPs, endpoints, certificates, snapshots.

A process of the older schema reads and writes replicas as before: the new columns have defaults, and the
constraint that goes was stricter than the one that comes.

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
    with op.batch_alter_table("replicas") as replicas:
        replicas.add_column(sa.Column("weight", sa.Integer(), nullable=False, server_default="100"))
        replicas.add_column(sa.Column("stand_in", sa.Boolean(), nullable=False, server_default=sa.false()))
        replicas.drop_constraint(op.f("uq_replicas_service_id_ordinal"), type_="unique")
        replicas.create_unique_constraint(
            op.f("uq_replicas_service_id_ordinal_stand_in"), ["service_id", "ordinal", "stand_in"]
        )
    op.add_column("releases", sa.Column("note", sa.Text(), nullable=False, server_default=""))
    _virtual_ips()
    _endpoints()
    _tls_certificates()
    _snapshots()


def _virtual_ips() -> None:
    op.create_table(
        "virtual_ips",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("service_id", sa.Text(), nullable=False),
        sa.Column("network_id", sa.Text(), nullable=False),
        sa.Column("address", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_virtual_ips_tenant_id")),
        sa.ForeignKeyConstraint(
            ["service_id"], ["services.id"], name=op.f("fk_virtual_ips_service_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["network_id"], ["networks.id"], name=op.f("fk_virtual_ips_network_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_virtual_ips")),
        sa.UniqueConstraint("network_id", "address", name=op.f("uq_virtual_ips_network_id_address")),
        sa.UniqueConstraint("service_id", "network_id", name=op.f("uq_virtual_ips_service_id_network_id")),
    )
    op.create_index(op.f("ix_virtual_ips_tenant_id"), "virtual_ips", ["tenant_id"])


def _endpoints() -> None:
    op.create_table(
        "endpoints",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("service_id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_endpoints_tenant_id")),
        sa.ForeignKeyConstraint(
            ["app_id"], ["apps.id"], name=op.f("fk_endpoints_app_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["service_id"], ["services.id"], name=op.f("fk_endpoints_service_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_endpoints")),
        sa.UniqueConstraint("host", "path", name=op.f("uq_endpoints_host_path")),
    )
    for column in ("tenant_id", "app_id", "service_id"):
        op.create_index(op.f(f"ix_endpoints_{column}"), "endpoints", [column])


def _tls_certificates() -> None:
    op.create_table(
        "tls_certificates",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("chain", sa.Text(), nullable=False),
        sa.Column("sealed_key", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.Column("expires", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_tls_certificates_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tls_certificates")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_tls_certificates_tenant_id_name")),
    )
    op.create_index(op.f("ix_tls_certificates_tenant_id"), "tls_certificates", ["tenant_id"])


def _snapshots() -> None:
    op.create_table(
        "snapshots",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("disk_id", sa.Text(), nullable=False),
        sa.Column("release_id", sa.Text(), nullable=True),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("created", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenants.id"], name=op.f("fk_snapshots_tenant_id")),
        sa.ForeignKeyConstraint(
            ["disk_id"], ["disks.id"], name=op.f("fk_snapshots_disk_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["release_id"], ["releases.id"], name=op.f("fk_snapshots_release_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(["host"], ["hosts.name"], name=op.f("fk_snapshots_host")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_snapshots")),
    )
    for column in ("tenant_id", "disk_id", "release_id"):
        op.create_index(op.f(f"ix_snapshots_{column}"), "snapshots", [column])
