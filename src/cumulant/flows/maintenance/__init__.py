"""What is due from time to time, and the cleanup of what nothing needs."""
