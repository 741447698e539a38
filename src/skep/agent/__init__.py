"""Runs on each host and makes it match."""
