"""The one place where objects are joined."""
