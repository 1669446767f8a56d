"""Data: contracts, validation, quarantine, snapshots and profiles."""
