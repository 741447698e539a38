"""SQL: one file per resource, SQLite and PostgreSQL."""
