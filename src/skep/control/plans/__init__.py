"""What a release changes, decided before anything is done.  Pure, but for the gathering of facts."""
