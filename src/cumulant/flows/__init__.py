"""Flows: each a plain function of a project and a principal, its steps recorded in the ledger.

`flows/X` orchestrates what the package `X` decides: it reads and writes stores, `X` has no I/O of its own.
"""
