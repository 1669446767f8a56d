"""Flows: each a plain function of a project and a principal, its steps recorded in the ledger."""
