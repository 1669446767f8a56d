"""The embedded gateway: callers on one side, the servers of two versions on the other, in a program of its own."""
