"""Receivers of messages over HTTP: any webhook, one in Slack's style, Alertmanager."""
