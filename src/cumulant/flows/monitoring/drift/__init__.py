"""Drift of a project's logs and tables: windows, charts, pages."""
