"""Runs, steps, leases and events."""
