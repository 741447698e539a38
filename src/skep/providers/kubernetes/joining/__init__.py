"""Whether a cluster can be a zone: what it has, what that means for apps, and how it is left again."""
