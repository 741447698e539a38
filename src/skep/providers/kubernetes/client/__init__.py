"""The way to a cluster: a connection, what it says when it refuses, and watches that remember."""
