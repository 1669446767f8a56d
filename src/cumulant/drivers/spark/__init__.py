"""Spark by its Connect protocol: `sc://`, `scs://`."""
