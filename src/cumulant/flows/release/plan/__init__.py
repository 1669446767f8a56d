"""What a release can decide, and when, before it begins."""
