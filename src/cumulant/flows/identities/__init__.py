"""Who calls the API and the console: API tokens, sessions, one-time links."""
