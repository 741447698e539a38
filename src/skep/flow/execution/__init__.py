"""What happens: runs in memory, the calls of their steps, the way back."""
