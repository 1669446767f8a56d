"""Feature plans as Flink SQL. Text alone: whatever runs the text needs nothing of Cumulant."""
