"""Scoring of requests, and the documents of each HTTP endpoint around it."""
