"""Watching a model in production: drift, quality with and without labels, retraining."""
