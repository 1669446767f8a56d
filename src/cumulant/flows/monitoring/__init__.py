"""Watching a served model: what it was made for, the days of its log, and what is seen there."""
