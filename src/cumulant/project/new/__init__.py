"""New projects: proposed from a user's table, or copied from a template."""
