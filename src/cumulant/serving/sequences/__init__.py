"""Sequences: state tensors that a server keeps between requests, for all workers."""
