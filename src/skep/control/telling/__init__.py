"""What every host must know of networks and of who serves, and how it hears of it."""
