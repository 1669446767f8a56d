"""Rows of one subject (whose row it is, by `subject` of its source): where they are, and their erasure."""
