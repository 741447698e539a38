"""What may go now: priorities, fairness, limits, rates and locks, in one decision that can explain itself."""
