"""Releases: the verbs that people call, and the controller that carries them out."""
