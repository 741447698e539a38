"""Namespaces of tenants, with the walls and bounds that they have."""
