"""Commands and events by routing key."""
