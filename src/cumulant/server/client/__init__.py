"""Callers of operations: over HTTP, and of a project in this process. Both have the same methods."""
