"""Hosts, pools and zones: how machines join, whether they live, how they are emptied."""
