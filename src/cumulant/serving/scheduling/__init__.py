"""Scheduling of scoring: immediate while idle, batched while busy, refused under overload."""
