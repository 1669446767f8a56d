"""The prediction task of a project, and its feature tables."""
