"""Checks of batches, files and whole snapshots, and the verdict on them."""
