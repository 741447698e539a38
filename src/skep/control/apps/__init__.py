"""Apps and their releases: planned, applied, rolled out, scaled, looked at."""
