"""Who owns things, who acts, and how much they may have."""
