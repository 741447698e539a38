"""HTTP: parse, authorise through control, answer."""
