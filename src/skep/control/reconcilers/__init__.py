"""Desired against actual, for ever; differences become runs."""
