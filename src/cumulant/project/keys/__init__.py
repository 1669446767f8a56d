"""Keys that a project keeps itself where its environment names no secret."""
