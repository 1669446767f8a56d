"""The review queue over HTTP: the commands of the command line, for each caller by name."""
