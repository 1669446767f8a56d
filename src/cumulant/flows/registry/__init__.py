"""Registered versions: registration, listing, lineage, comparison."""
