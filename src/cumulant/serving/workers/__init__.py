"""Processes of the server: supervisor, workers, listeners, channels between them."""
