"""Stored parts of a snapshot: how they are made, packed, changed and looked up."""
