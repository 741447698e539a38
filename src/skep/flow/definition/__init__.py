"""What is written: documents, their wiring against typed steps, and the plans that come of it."""
