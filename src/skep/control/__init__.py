"""Use cases: one file per resource.  Every entrance (API, reconcilers) comes through here."""
