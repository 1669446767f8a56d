"""Alerts of a project: stored in the journal, delivered to receivers, acknowledged and silenced."""
