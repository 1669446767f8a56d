"""Declarations of a source: proposed from data, written, imported and exported as contracts."""
