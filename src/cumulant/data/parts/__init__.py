"""Stored parts of a snapshot: building, packing, changing and finding them."""
