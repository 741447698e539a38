"""Alembic migrations of the whole schema: the cloud's tables and the flow engine's."""
