"""Labels: read, stored, counted."""
