"""Monitoring of a served model: `drift` compares its rows with a reference, `performance` its losses."""
