"""Import of a Feast repository: its definitions as JSON, what they become here, and the files of the project."""
