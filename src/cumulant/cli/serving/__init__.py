"""Commands that serve, predict and replay."""
