"""Cumulant: a model's whole life from one project file."""

__version__ = "0.1.0"
