"""Checkpoints of a project's event chain, and its events in formats of others."""
