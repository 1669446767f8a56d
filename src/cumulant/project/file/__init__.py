"""The project file: parsed, layered, checked, typed."""
