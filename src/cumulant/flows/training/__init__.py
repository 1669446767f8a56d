"""From snapshots and features to a registered version: train, evaluate, models, lineage."""
