"""The one place where objects are joined: a module for each kind of process, and what they share.

`up` is everything in one process; `serve`, `worker` and `agent` are its parts, for many machines.
"""
