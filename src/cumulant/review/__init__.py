"""The review queue: cases chosen from the prediction log with known chances, their decisions, and labels."""
