"""The packet rules: one table on the host, and those of every router namespace.  Pure text, no I/O.

What is refused is dropped: to a tenant, the host and other tenants look like an address nobody has.
"""
