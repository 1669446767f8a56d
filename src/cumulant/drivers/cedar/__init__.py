"""Access by Cedar policies: those of the project's role bindings, and files of a team."""
