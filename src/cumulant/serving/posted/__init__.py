"""Posted data: events that update online state, and labels."""
