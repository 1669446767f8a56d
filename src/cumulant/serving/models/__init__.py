"""The models that a server answers for: opened, checked, pinned, run."""
