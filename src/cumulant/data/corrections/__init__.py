"""Rows that were corrected or deleted: their versions, and when each is in force."""
