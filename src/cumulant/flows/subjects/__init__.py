"""Rows of one subject (by the column that `subject` of their source names): where they are, and their erasure."""
