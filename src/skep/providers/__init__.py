"""What satisfies control's ports, one package per kind of zone."""
