"""What would run: checked before anything runs."""
