"""The engine's tables.  Truth is `flow_steps`; `flow_events` is the history and is only ever appended to.

Times are seconds since 1970.  Structured values are JSON.  A step that was never started has no row, nor has
one that began only just now: a step whose predecessors have all ended may have begun.
"""

from sqlalchemy import (
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
)

metadata = MetaData()

definitions = Table(
    "flow_definitions",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("name", String, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("created", Double, nullable=False),
)
"""Plans, by the SHA-256 of their content; `created` is when a worker last made sure that it is there."""

runs = Table(
    "flow_runs",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("flow", String, nullable=False),
    Column("definition", String(64), ForeignKey("flow_definitions.hash"), nullable=False),
    Column("title", String, nullable=False),
    Column("tenant", String, nullable=False),
    Column("labels", Text, nullable=False),
    Column("key", String, nullable=True),
    Column("input", LargeBinary, nullable=False),
    Column("locks", Text, nullable=False),
    Column("total", Integer, nullable=False),
    Column("created", Double, nullable=False),
    Column("parent", String(40), nullable=False, server_default=""),
    Column("priority", Integer, nullable=False, server_default=text("2")),
    Column("deadline", Double, nullable=True),
    Column("state", String(20), nullable=False),
    Column("cause", String(20), nullable=False),
    Column("error", Text, nullable=False),
    Column("output", LargeBinary, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("round", Integer, nullable=False, server_default=text("0")),
    Column("crashes", Integer, nullable=False, server_default=text("0")),
    Column("paused", Boolean, nullable=False, server_default=false()),
    Column("worker", String(40), nullable=True),
    Column("started", Double, nullable=True),
    Column("finished", Double, nullable=True),
    Index("flow_runs_key", "tenant", "key", unique=True),
    Index("flow_runs_tenant", "tenant", "id"),
    Index("flow_runs_finished", "finished", "id"),
    Index("flow_runs_definition", "definition"),
    Index("flow_runs_worker", "worker", "finished", "priority", "id"),
)

labels = Table(
    "flow_labels",
    metadata,
    Column("run", String(40), ForeignKey("flow_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("key", String, primary_key=True),
    Column("value", String, nullable=False),
    Index("flow_labels_value", "key", "value", "run"),
)

steps = Table(
    "flow_steps",
    metadata,
    Column("run", String(40), ForeignKey("flow_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("step", String, primary_key=True),
    Column("state", String(20), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("undo_attempts", Integer, nullable=False),
    Column("result", LargeBinary, nullable=True),
    Column("blob", String(64), nullable=True),
    Column("error", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("started", Double, nullable=True),
    Column("finished", Double, nullable=True),
    Index(
        "flow_steps_blob",
        "blob",
        postgresql_where=text("blob IS NOT NULL"),
        sqlite_where=text("blob IS NOT NULL"),
    ),
    sqlite_with_rowid=False,
)

events = Table(
    "flow_events",
    metadata,
    Column("run", String(40), ForeignKey("flow_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    Column("step", String, nullable=False),
    Column("kind", String(20), nullable=False),
    Column("at", Double, nullable=False),
    Column("message", Text, nullable=False),
    sqlite_with_rowid=False,
)

blobs = Table(
    "flow_blobs",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("content", LargeBinary, nullable=False),
    Column("created", Double, nullable=False),
)
"""Results too large for the rows of steps, by the SHA-256 of their JSON."""

signals = Table(
    "flow_signals",
    metadata,
    Column("run", String(40), ForeignKey("flow_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("by", String, nullable=False),
    Column("at", Double, nullable=False),
    Column("step", String, nullable=True),
    Index(
        "flow_signals_untaken",
        "run",
        postgresql_where=text("step IS NULL"),
        sqlite_where=text("step IS NULL"),
    ),
)

inbox = Table(
    "flow_inbox",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("run", String(40), ForeignKey("flow_runs.id", ondelete="CASCADE"), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("by", String, nullable=False),
    Column("at", Double, nullable=False),
    Column("reply", LargeBinary, nullable=True),
    Index("flow_inbox_run", "run"),
)
"""What other processes ask of the worker that has a run; answered in the commit that carries it out."""

workers = Table(
    "flow_workers",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String, nullable=False),
    Column("state", String(10), nullable=False),
    Column("started", Double, nullable=False),
    Column("expires", Double, nullable=False),
    Column("suspect", String(40), nullable=True),
)
"""Leases, by the clock of the database.  live, left or fenced: then its commits are refused."""

locks = Table(
    "flow_locks",
    metadata,
    Column("key", String, primary_key=True),
    Column("run", String(40), ForeignKey("flow_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("capacity", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("held", Boolean, nullable=False),
    Index("flow_locks_run", "run"),
)
"""Where several workers share a database: who holds each key, and who waits for it."""

permits = Table(
    "flow_permits",
    metadata,
    Column("key", String, primary_key=True),
    Column("run", String(40), ForeignKey("flow_runs.id", ondelete="CASCADE"), primary_key=True),
    Column("step", String, primary_key=True),
    Column("worker", String(40), nullable=False),
    Index("flow_permits_step", "run", "step"),
)
"""Where several workers share a database: the steps that count against a concurrency limit now."""

buckets = Table(
    "flow_buckets",
    metadata,
    Column("key", String, primary_key=True),
    Column("tokens", Double, nullable=False),
    Column("at", Double, nullable=False),
)
"""Where several workers share a database: token buckets of rates."""

policies = Table(
    "flow_policies",
    metadata,
    Column("key", String, primary_key=True),
    Column("concurrency", Integer, nullable=True),
    Column("rate", Double, nullable=True),
    Column("burst", Double, nullable=True),
    Column("weight", Double, nullable=True),
    Column("by", String, nullable=False),
    Column("at", Double, nullable=False),
)
"""Limits that operators set: they go before what documents say."""

bundles = Table(
    "flow_bundles",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("name", String, nullable=False),
    Column("version", String, nullable=False),
    Column("manifest", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("by", String, nullable=False),
    Column("at", Double, nullable=False),
    Index("flow_bundles_name", "name"),
)

activations = Table(
    "flow_activations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String, nullable=False),
    Column("hash", String(64), nullable=True),
    Column("by", String, nullable=False),
    Column("at", Double, nullable=False),
    Index("flow_activations_name", "name", "id"),
)
"""Which version of a bundle is in force: the newest row of its name; null is none."""

schedules = Table(
    "flow_schedules",
    metadata,
    Column("tenant", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("flow", String, nullable=False),
    Column("input", LargeBinary, nullable=False),
    Column("cron", String, nullable=False),
    Column("timezone", String, nullable=False),
    Column("overlap", String(20), nullable=False),
    Column("missed", String(20), nullable=False),
    Column("priority", Integer, nullable=True),
    Column("paused", Boolean, nullable=False),
    Column("next", Double, nullable=False),
    Column("last", Double, nullable=True),
    Column("last_run", String(40), nullable=True),
    Column("error", Text, nullable=False),
    Column("by", String, nullable=False),
    Column("at", Double, nullable=False),
    Index("flow_schedules_next", "next"),
)

archive = Table(
    "flow_archive",
    metadata,
    Column("run", String(40), primary_key=True),
    Column("tenant", String, nullable=False),
    Column("flow", String, nullable=False),
    Column("title", String, nullable=False),
    Column("state", String(20), nullable=False),
    Column("created", Double, nullable=False),
    Column("finished", Double, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Index("flow_archive_tenant", "tenant", "run"),
    Index("flow_archive_finished", "finished"),
)
"""Runs that ended long ago: the run, its steps and its history as compressed JSON."""
