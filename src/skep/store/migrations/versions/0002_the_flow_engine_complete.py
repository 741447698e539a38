"""The flow engine complete.

Revision ID: 0002
Revises: 0001
"""

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_runs = sa.table("flow_runs", sa.column("id", sa.String), sa.column("locks", sa.Text))
_definitions = sa.table(
    "flow_definitions", sa.column("hash", sa.String), sa.column("content", sa.LargeBinary)
)


def upgrade() -> None:
    op.create_table(
        "flow_activations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=True),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("flow_activations", schema=None) as batch_op:
        batch_op.create_index("flow_activations_name", ["name", "id"], unique=False)

    op.create_table(
        "flow_archive",
        sa.Column("run", sa.String(length=40), nullable=False),
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("flow", sa.String(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("finished", sa.Double(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("run"),
    )
    with op.batch_alter_table("flow_archive", schema=None) as batch_op:
        batch_op.create_index("flow_archive_tenant", ["tenant", "run"], unique=False)
        batch_op.create_index("flow_archive_finished", ["finished"], unique=False)

    op.create_table(
        "flow_blobs",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_table(
        "flow_buckets",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("tokens", sa.Double(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "flow_bundles",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("manifest", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("hash"),
    )
    with op.batch_alter_table("flow_bundles", schema=None) as batch_op:
        batch_op.create_index("flow_bundles_name", ["name"], unique=False)

    op.create_table(
        "flow_policies",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("concurrency", sa.Integer(), nullable=True),
        sa.Column("rate", sa.Double(), nullable=True),
        sa.Column("burst", sa.Double(), nullable=True),
        sa.Column("weight", sa.Double(), nullable=True),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "flow_schedules",
        sa.Column("tenant", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("flow", sa.String(), nullable=False),
        sa.Column("input", sa.LargeBinary(), nullable=False),
        sa.Column("cron", sa.String(), nullable=False),
        sa.Column("timezone", sa.String(), nullable=False),
        sa.Column("overlap", sa.String(length=20), nullable=False),
        sa.Column("missed", sa.String(length=20), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=True),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("next", sa.Double(), nullable=False),
        sa.Column("last", sa.Double(), nullable=True),
        sa.Column("last_run", sa.String(length=40), nullable=True),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name"),
    )
    with op.batch_alter_table("flow_schedules", schema=None) as batch_op:
        batch_op.create_index("flow_schedules_next", ["next"], unique=False)

    op.create_table(
        "flow_workers",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("started", sa.Double(), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("suspect", sa.String(length=40), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "flow_inbox",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("run", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("reply", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["run"], ["flow_runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("flow_inbox", schema=None) as batch_op:
        batch_op.create_index("flow_inbox_run", ["run"], unique=False)

    op.create_table(
        "flow_locks",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("run", sa.String(length=40), nullable=False),
        sa.Column("capacity", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("held", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["flow_runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key", "run"),
    )
    with op.batch_alter_table("flow_locks", schema=None) as batch_op:
        batch_op.create_index("flow_locks_run", ["run"], unique=False)

    op.create_table(
        "flow_permits",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("run", sa.String(length=40), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("worker", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["flow_runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key", "run", "step"),
    )
    with op.batch_alter_table("flow_permits", schema=None) as batch_op:
        batch_op.create_index("flow_permits_step", ["run", "step"], unique=False)

    op.create_table(
        "flow_signals",
        sa.Column("run", sa.String(length=40), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("step", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["run"], ["flow_runs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run", "id"),
    )
    untaken = sa.text("step IS NULL")
    op.create_index(
        "flow_signals_untaken", "flow_signals", ["run"], postgresql_where=untaken, sqlite_where=untaken
    )
    # One by one: batches make the table anew, and dropping the old one deletes the steps of its runs.
    for column in (
        sa.Column("parent", sa.String(length=40), server_default="", nullable=False),
        sa.Column("priority", sa.Integer(), server_default=sa.text("2"), nullable=False),
        sa.Column("deadline", sa.Double(), nullable=True),
        sa.Column("round", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("crashes", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("paused", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("worker", sa.String(length=40), nullable=True),
    ):
        op.add_column("flow_runs", column)
    op.create_index("flow_runs_worker", "flow_runs", ["worker", "finished", "priority", "id"])
    op.create_index("flow_runs_definition", "flow_runs", ["definition"])
    op.add_column("flow_steps", sa.Column("blob", sa.String(length=64), nullable=True))
    stored = sa.text("blob IS NOT NULL")
    op.create_index("flow_steps_blob", "flow_steps", ["blob"], postgresql_where=stored, sqlite_where=stored)

    _give_locks_capacities(op.get_bind())
    _rewrite_retries(op.get_bind())


def _give_locks_capacities(connection: sa.Connection) -> None:
    """`["app/x"]` has become `[["app/x", 1]]`."""
    locked = connection.execute(sa.select(_runs.c.id, _runs.c.locks).where(_runs.c.locks != "[]")).all()
    change = sa.update(_runs).where(_runs.c.id == sa.bindparam("run"))
    for identifier, text in locked:
        claims = [[key, 1] if isinstance(key, str) else key for key in json.loads(text)]
        connection.execute(change.values(locks=json.dumps(claims)), {"run": identifier})


def _rewrite_retries(connection: sa.Connection) -> None:
    """`"retry": 3` has become `"retry": {"times": 3}`.  The hash stays: runs refer to it."""
    change = sa.update(_definitions).where(_definitions.c.hash == sa.bindparam("definition"))
    for identifier, content in connection.execute(
        sa.select(_definitions.c.hash, _definitions.c.content)
    ).all():
        plan = json.loads(content)
        old = [step for step in plan["steps"] if isinstance(step.get("retry"), int)]
        for step in old:
            step["retry"] = {"times": step["retry"]}
        if old:
            changed = json.dumps(plan, sort_keys=True).encode()
            connection.execute(change.values(content=changed), {"definition": identifier})
