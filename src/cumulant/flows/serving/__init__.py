"""Servers of a project, predictions, and their log."""
