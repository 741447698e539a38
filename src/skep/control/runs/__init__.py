"""Flows and their runs, as tenants and operators see and steer them."""
