"""Features of one request from stored state, and how that state is filled."""
