"""The window kernel: numpy arrays in, numpy arrays out. It knows sorted events and ranges of them, and no frames."""
