"""Valkey, and Redis, which speaks the same."""
