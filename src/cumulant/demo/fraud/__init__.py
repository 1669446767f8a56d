"""The Black Friday story: card payments from a topic to decisions, through a spike of five times the traffic."""
