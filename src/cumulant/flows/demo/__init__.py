"""What the demo shows after the first model serves: candidates that are released, and what becomes of them."""
