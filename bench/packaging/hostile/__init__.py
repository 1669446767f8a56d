"""Malicious and broken model files, made the same way each time."""
