"""Alerts of a project: kept in the journal, delivered to receivers, answered by people."""
