"""How the processes of an installation know each other: an authority of their own, and mutual TLS."""
