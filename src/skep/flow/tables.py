"""The engine's tables.  Truth is `flow_steps`; `flow_events` is the history and is only ever appended to.

Times are seconds since 1970.  Structured values are JSON.  A pending step has no row.
"""

from sqlalchemy import Column, Double, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Table, Text

metadata = MetaData()

definitions = Table(
    "flow_definitions",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("name", String, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("created", Double, nullable=False),
)

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
    Column("state", String(20), nullable=False),
    Column("cause", String(20), nullable=False),
    Column("error", Text, nullable=False),
    Column("output", LargeBinary, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("started", Double, nullable=True),
    Column("finished", Double, nullable=True),
    Index("flow_runs_key", "tenant", "key", unique=True),
    Index("flow_runs_tenant", "tenant", "id"),
    Index("flow_runs_finished", "finished", "id"),
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
    Column("error", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("started", Double, nullable=True),
    Column("finished", Double, nullable=True),
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
