"""The flows of the review queue: filling it, answering it, and making labels and training rows of the answers."""
