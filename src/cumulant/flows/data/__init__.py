"""Snapshots of a project's sources: validated, read, checked for use."""
