"""What fitted models are stored as, without pickle."""
