"""The plan of a release: what it can decide, and when, before it begins."""
