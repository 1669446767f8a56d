"""Who sends a request: tokens and sessions of callers, one-time links, and sign-in by an OpenID provider."""
