"""Evaluation on rows that no model learned from, and the gate."""
