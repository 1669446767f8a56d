"""Notifications over HTTP: any webhook, Slack and compatible ones, Alertmanager."""
