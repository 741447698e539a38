"""Alembic's entry: `schema.migrate` hands over an open connection."""

from alembic import context

from skep.flow.storage import tables as flow_tables
from skep.store import tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=[tables.metadata, flow_tables.metadata],
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
