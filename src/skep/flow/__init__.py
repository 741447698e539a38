"""A durable flow engine; has never heard of clouds."""
