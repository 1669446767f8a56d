"""Metrics of a project, service level objectives and their rules, and the programs that observe a running stack."""
