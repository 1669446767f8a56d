"""The demo after the first model serves: released candidates, monitoring, retraining and review."""
