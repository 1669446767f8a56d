"""What callers post beside requests: events that update state, and labels."""
