"""The join of predictions with labels and with mirrored requests."""
