"""Monitoring of a served model: its reference, the days of its prediction log, drift, loss and retraining."""
