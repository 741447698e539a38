"""Networks as tenants see them: addresses, subnets, shares, ways out, groups, and who reaches whom."""
