"""Limits that operators set, by key."""


class Policies:
    """None yet."""
