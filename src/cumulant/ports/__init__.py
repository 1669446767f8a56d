"""Interfaces of external systems: one small Protocol per file. Drivers implement them."""
