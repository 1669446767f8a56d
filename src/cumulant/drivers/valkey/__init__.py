"""Valkey, and Redis, which has the same protocol."""
