"""Feature plans as Spark SQL. Text alone: whatever runs the text needs nothing of Cumulant."""
