"""Runs, steps, leases, events, clean-up and what is due."""
