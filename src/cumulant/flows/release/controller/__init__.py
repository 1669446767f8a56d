"""The controller of releases: evidence, decisions, effects, status."""
