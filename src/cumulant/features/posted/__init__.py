"""Rows that are posted to a source, and the online state that they update."""
