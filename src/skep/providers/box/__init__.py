"""A data centre on one machine: hosts that are namespaces, joined by wires of their own."""
