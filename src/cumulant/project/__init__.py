"""The project file, typed and resolved, and the only place that reads the environment."""
