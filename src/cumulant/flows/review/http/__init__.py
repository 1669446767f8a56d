"""The review queue over HTTP: the same verbs as on the command line, for each caller by name."""
