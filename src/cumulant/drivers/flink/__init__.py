"""Flink by its SQL gateway: `flink://`, `flinks://`."""
