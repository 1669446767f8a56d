"""Bodies that are sent or taken in parts: events, JSON lines, files."""
