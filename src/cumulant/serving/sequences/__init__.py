"""State tensors: what a server keeps of a sequence between its requests, for all of its workers."""
