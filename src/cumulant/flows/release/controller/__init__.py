"""The controller of releases: evidence, effects, status."""
