"""Feature tables of a project."""
