"""How a candidate takes over from the champion: stages, evidence, and what is decided from it."""
