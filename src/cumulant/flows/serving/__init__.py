"""Servers of a project, the online state that they read, predictions, and their log."""
