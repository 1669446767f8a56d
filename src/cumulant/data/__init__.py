"""Data: contracts, validation, quarantine, snapshots and profiles.

`ingest` turns a source's files into a `Snapshot`; `scan` reads one back, `quarantined` shows what was refused.
"""
