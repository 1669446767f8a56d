"""Feature tables and the stored state of a project."""
