"""Simulated releases: synthetic requests, pairs and labels of a described world, decided by the shipped code."""
