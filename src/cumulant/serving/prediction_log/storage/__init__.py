"""Files of the prediction log: written, merged, recovered, deleted, read."""
