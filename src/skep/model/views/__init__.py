"""What the API answers: the public shape of every resource, a module each.

Control makes them, the API sends them, the command line shows them.  Times are RFC 3339 in UTC, spans are
seconds.  Fields are only ever added.
"""
