"""Replays: the rows of a past period sent as requests, and their labels when they became known."""
