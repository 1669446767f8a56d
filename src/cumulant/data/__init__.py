"""Data: contracts, validation, quarantine, snapshots and profiles.

`ingest` turns a source's files into a `Snapshot`; `scan` reads its rows, `read_quarantine` the refused ones.
"""
