"""Features of many rows, point in time correct, in memory or in parts."""
