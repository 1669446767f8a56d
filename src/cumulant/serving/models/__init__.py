"""Served models: opened, checked, pinned, run."""
