"""What became of the predictions: labels that come late, and their join with the prediction log."""
