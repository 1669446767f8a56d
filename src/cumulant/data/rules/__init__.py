"""Rules on single rows: conditions, patterns, uniqueness, severities, and the check of `prepare`."""
