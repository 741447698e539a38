"""Watches an engine: metrics for Prometheus, spans for OpenTelemetry, and where the time of a run went."""
