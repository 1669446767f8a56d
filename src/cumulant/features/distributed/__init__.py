"""Features of a history on many machines: an engine divides and moves rows, its processes compute as `offline` does."""
