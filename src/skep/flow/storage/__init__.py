"""What is durable: tables, the group-committing writer, leases, what others ask of a run."""
