"""The project file, typed and resolved, and the only place that resolves drivers and reads the environment."""
