"""Commands about monitoring, alerts, labels and reviews."""
