"""The schema of the cloud.  Every row somebody owns carries its tenant's id.

The flow engine's tables are its own (`skep.flow.tables`); migrations own both.  Times are seconds since 1970.
"""

import sqlalchemy as sa
from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
)

from skep.model.groups import GroupRule
from skep.model.host import ContainerStatus
from skep.model.images import ImageInfo
from skep.model.spec import AppSpec, EndpointSpec
from skep.model.topology import HostLoad
from skep.model.views.tenants import Quota
from skep.store.columns import Json, Wide
from skep.store.subnets import Subnet

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _id() -> Column[str]:
    return Column("id", Text, primary_key=True)


def _tenant() -> Column[str]:
    return Column("tenant_id", Text, ForeignKey("tenants.id"), nullable=False, index=True)


def _created() -> Column[float]:
    return Column("created", Float, nullable=False)


regions = Table("regions", metadata, Column("name", Text, primary_key=True))

zones = Table(
    "zones",
    metadata,
    Column("name", Text, primary_key=True),
    Column("region", Text, ForeignKey("regions.name"), nullable=False),
)

pools = Table(
    "pools",
    metadata,
    Column("name", Text, primary_key=True),
    Column("zone", Text, ForeignKey("zones.name"), nullable=False),
    Column("cpu_overcommit", Float, nullable=False),
    Column("memory_overcommit", Float, nullable=False),
    Column("tenant_id", Text, ForeignKey("tenants.id")),
    Column("labels", Json(dict[str, str]), nullable=False),
)

hosts = Table(
    "hosts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("zone", Text, ForeignKey("zones.name"), nullable=False),
    Column("state", Text, nullable=False),
    Column("cpus", Integer, nullable=False),
    Column("memory", sa.BigInteger, nullable=False),
    Column("kernel", Text, nullable=False),
    Column("cgroups", Text, nullable=False),
    Column("boot_id", Text, nullable=False),
    Column("pool", Text, ForeignKey("pools.name")),
    Column("intent", Text, nullable=False, server_default="active"),
    Column("labels", Json(dict[str, str]), nullable=False, server_default="{}"),
    Column("cpu_overcommit", Float),
    Column("memory_overcommit", Float),
    Column("underlay", Text, nullable=False, server_default=""),
    Column("address", Text, nullable=False, server_default=""),
    Column("certificate", Text),
    Column("version", Text, nullable=False, server_default=""),
    Column("load", Json(HostLoad), nullable=False, server_default="{}"),
    Column("seen", Float),
    Column("lease_expires", Float),
    Column("fenced", Float),
)

clusters = Table(
    "clusters",
    metadata,
    _id(),
    Column("zone", Text, ForeignKey("zones.name"), nullable=False, unique=True),
    Column("host", Text, ForeignKey("hosts.name"), nullable=False, unique=True),
    Column("server", Text, nullable=False),
    Column("context", Text, nullable=False),
    Column("sealed_kubeconfig", LargeBinary, nullable=False),
    Column("registry", Text, nullable=False),
    Column("sealed_login", LargeBinary, nullable=False),
    Column("lacks", Json(tuple[str, ...]), nullable=False),
    Column("ranges", Json(tuple[str, ...]), nullable=False, server_default="[]"),
    Column("generation", Integer, nullable=False),
    _created(),
)

authorities = Table(
    "authorities",
    metadata,
    Column("fingerprint", Text, primary_key=True),
    Column("place", Integer, nullable=False, unique=True),
    Column("certificate", Text, nullable=False),
    Column("sealed_key", LargeBinary, nullable=False),
    _created(),
)

certificates = Table(
    "certificates",
    metadata,
    Column("serial", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("name", Text, nullable=False),
    _created(),
    Column("expires", Float, nullable=False),
    Index(None, "role", "name"),
)

join_tokens = Table(
    "join_tokens",
    metadata,
    _id(),
    Column("hash", Text, nullable=False, unique=True),
    Column("host", Text),
    Column("zone", Text, nullable=False),
    Column("pool", Text),
    _created(),
    Column("created_by", Text, nullable=False),
    Column("expires", Float, nullable=False),
    Column("used", Float),
    Column("used_by", Text),
)

tenants = Table(
    "tenants",
    metadata,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    Column("quota", Json(Quota), nullable=False),
    _created(),
)

users = Table(
    "users",
    metadata,
    _id(),
    _tenant(),
    Column("name", Text, nullable=False, unique=True),
    Column("role", Text, nullable=False),
    _created(),
)

tokens = Table(
    "tokens",
    metadata,
    _id(),
    _tenant(),
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("hash", Text, nullable=False, unique=True),
    _created(),
    Column("expires", Float),
    Column("last_used", Float),
)

apps = Table(
    "apps",
    metadata,
    _id(),
    _tenant(),
    Column("name", Text, nullable=False),
    Column("release_id", Text),
    Column("revision", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("removing", Boolean, nullable=False),
    Column("remove_volumes", Boolean, nullable=False),
    _created(),
    Column("updated", Float, nullable=False),
    UniqueConstraint("tenant_id", "name"),
)

releases = Table(
    "releases",
    metadata,
    _id(),
    _tenant(),
    Column("app_id", Text, ForeignKey("apps.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("revision", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("spec", Json(AppSpec), nullable=False),
    Column("plan", Text, nullable=False),
    Column("images", Json(dict[str, ImageInfo]), nullable=False),
    Column("created_by", Text, nullable=False),
    _created(),
    Column("note", Text, nullable=False, server_default=""),
)

files = Table(
    "files",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("tenant_id", Text, ForeignKey("tenants.id"), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

services = Table(
    "services",
    metadata,
    _id(),
    _tenant(),
    Column("app_id", Text, ForeignKey("apps.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("security_groups", Json(tuple[str, ...]), nullable=False, server_default="[]"),
    UniqueConstraint("app_id", "name"),
)

replicas = Table(
    "replicas",
    metadata,
    _id(),
    _tenant(),
    Column("app_id", Text, ForeignKey("apps.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("service_id", Text, ForeignKey("services.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("service", Text, nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("host", Text, ForeignKey("hosts.name"), nullable=False, index=True),
    Column("container_id", Text, nullable=False, index=True),
    Column("desired", Text, nullable=False),
    Column("status", Json(ContainerStatus)),
    _created(),
    Column("weight", Integer, nullable=False, server_default="100"),
    Column("stand_in", Boolean, nullable=False, server_default=sa.false()),
    UniqueConstraint("service_id", "ordinal", "stand_in"),
)

containers = Table(
    "containers",
    metadata,
    _id(),
    _tenant(),
    Column("replica_id", Text, ForeignKey("replicas.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("release_id", Text, ForeignKey("releases.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("system_disk", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    _created(),
)

networks = Table(
    "networks",
    metadata,
    _id(),
    _tenant(),
    Column("app_id", Text, ForeignKey("apps.id", ondelete="CASCADE")),
    Column("name", Text, nullable=False),
    Column("subnet", Text, nullable=False),
    Column("gateway", Text, nullable=False),
    Column("number", Integer, nullable=False, unique=True),
    Column("cursor", sa.BigInteger, nullable=False),
    Column("internal", Boolean, nullable=False),
    _created(),
    Column("more", Json(tuple[Subnet, ...]), nullable=False, server_default="[]"),
    UniqueConstraint("tenant_id", "name"),
)

ports = Table(
    "ports",
    metadata,
    _id(),
    _tenant(),
    Column("network_id", Text, ForeignKey("networks.id"), nullable=False, index=True),
    Column("replica_id", Text, ForeignKey("replicas.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("address", sa.BigInteger, nullable=False),
    Column("mac", Text, nullable=False),
    Column("names", Json(tuple[str, ...]), nullable=False),
    Column("position", Integer, nullable=False),
    Column("address6", Wide),
    UniqueConstraint("network_id", "address"),
    UniqueConstraint("network_id", "replica_id"),
    Index("ix_ports_network_id_address6", "network_id", "address6", unique=True),
)

fixed_addresses = Table(
    "fixed_addresses",
    metadata,
    Column("host", Text, ForeignKey("hosts.name", ondelete="CASCADE"), primary_key=True),
    Column("address", Text, primary_key=True),
    _tenant(),
    Column("replica_id", Text, ForeignKey("replicas.id", ondelete="CASCADE"), nullable=False, index=True),
)

reservations = Table(
    "reservations",
    metadata,
    _id(),
    _tenant(),
    Column("network_id", Text, ForeignKey("networks.id", ondelete="CASCADE"), nullable=False),
    Column("first", sa.BigInteger, nullable=False),
    Column("last", sa.BigInteger, nullable=False),
    Column("purpose", Text, nullable=False),
    _created(),
    UniqueConstraint("network_id", "first"),
)

reservations6 = Table(
    "reservations6",
    metadata,
    _id(),
    _tenant(),
    Column("network_id", Text, ForeignKey("networks.id", ondelete="CASCADE"), nullable=False),
    Column("first", Wide, nullable=False),
    Column("last", Wide, nullable=False),
    Column("purpose", Text, nullable=False),
    _created(),
    UniqueConstraint("network_id", "first"),
)
"""Apart from those of IPv4, which are numbers that a database knows."""

shares = Table(
    "shares",
    metadata,
    _id(),
    _tenant(),
    Column("network_id", Text, ForeignKey("networks.id", ondelete="CASCADE"), nullable=False),
    Column("guest", Text, nullable=False),
    Column("guest_id", Text, ForeignKey("tenants.id")),
    Column("alias", Text),
    _created(),
    Column("accepted", Float),
    UniqueConstraint("network_id", "guest"),
    UniqueConstraint("guest_id", "alias"),
)

disks = Table(
    "disks",
    metadata,
    _id(),
    _tenant(),
    Column("app_id", Text),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("size", sa.BigInteger, nullable=False),
    Column("host", Text, ForeignKey("hosts.name"), nullable=False),
    _created(),
    Column("side", Text, nullable=False, server_default=""),
    UniqueConstraint("tenant_id", "name"),
)

published = Table(
    "published_ports",
    metadata,
    _id(),
    _tenant(),
    Column("service_id", Text, ForeignKey("services.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("host_ip", Text, nullable=False),
    Column("protocol", Text, nullable=False),
    Column("published", Integer, nullable=False),
    Column("target", Integer, nullable=False),
    UniqueConstraint("host_ip", "protocol", "published"),
)

virtual_ips = Table(
    "virtual_ips",
    metadata,
    _id(),
    _tenant(),
    Column("service_id", Text, ForeignKey("services.id", ondelete="CASCADE"), nullable=False),
    Column("network_id", Text, ForeignKey("networks.id"), nullable=False),
    Column("address", sa.BigInteger, nullable=False),
    UniqueConstraint("network_id", "address"),
    UniqueConstraint("service_id", "network_id"),
)

endpoints = Table(
    "endpoints",
    metadata,
    _id(),
    _tenant(),
    Column("app_id", Text, ForeignKey("apps.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("service_id", Text, ForeignKey("services.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("host", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("spec", Json(EndpointSpec), nullable=False),
    Column("wakes", Boolean, nullable=False, server_default=sa.false()),
    _created(),
    UniqueConstraint("host", "path"),
)

tls_certificates = Table(
    "tls_certificates",
    metadata,
    _id(),
    _tenant(),
    Column("name", Text, nullable=False),
    Column("chain", Text, nullable=False),
    Column("sealed_key", LargeBinary, nullable=False),
    _created(),
    Column("expires", Float, nullable=False),
    UniqueConstraint("tenant_id", "name"),
)

acme_accounts = Table(
    "acme_accounts",
    metadata,
    Column("directory", Text, primary_key=True),
    Column("url", Text, nullable=False),
    Column("sealed_key", LargeBinary, nullable=False),
    _created(),
)

acme_orders = Table(
    "acme_orders",
    metadata,
    _id(),
    _tenant(),
    Column("host", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("sealed_key", LargeBinary, nullable=False),
    Column("proof", Text, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("problem", Text, nullable=False),
    Column("due", Float, nullable=False, index=True),
    Column("ordered", Float, nullable=False),
    _created(),
    UniqueConstraint("tenant_id", "host"),
)

snapshots = Table(
    "snapshots",
    metadata,
    _id(),
    _tenant(),
    Column("disk_id", Text, ForeignKey("disks.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("release_id", Text, ForeignKey("releases.id", ondelete="SET NULL"), index=True),
    Column("host", Text, ForeignKey("hosts.name"), nullable=False),
    _created(),
)

images = Table(
    "images",
    metadata,
    _id(),
    Column("tenant_id", Text, nullable=False, index=True),
    Column("reference", Text, nullable=False),
    Column("digest", Text, nullable=False, index=True),
    Column("info", Json(ImageInfo), nullable=False),
    _created(),
    UniqueConstraint("tenant_id", "reference"),
)

schema_serves = Table("schema_serves", metadata, Column("revision", Text, primary_key=True))
"""One row: the oldest schema whose processes may use this database (`store/schema.py`)."""
egress_addresses = Table(
    "egress_addresses",
    metadata,
    _id(),
    Column("zone", Text, ForeignKey("zones.name"), nullable=False),
    Column("address", sa.BigInteger, nullable=False, unique=True),
    Column("tenant_id", Text, ForeignKey("tenants.id"), index=True),
    Column("network_id", Text, ForeignKey("networks.id", ondelete="SET NULL"), unique=True),
    Column("host", Text, ForeignKey("hosts.name", ondelete="SET NULL")),
    _created(),
)

security_groups = Table(
    "security_groups",
    metadata,
    _id(),
    _tenant(),
    Column("name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("rules", Json(tuple[GroupRule, ...]), nullable=False),
    _created(),
    Column("changed", Float, nullable=False),
    Column("changed_by", Text, nullable=False),
    UniqueConstraint("tenant_id", "name"),
)


leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("expires", Float, nullable=False),
)

Index("ix_releases_app_revision", releases.c.app_id, releases.c.revision)
