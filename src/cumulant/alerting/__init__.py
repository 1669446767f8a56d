"""Alerts as pure decisions: which fire, are notified and resolve, by state, findings and time."""
