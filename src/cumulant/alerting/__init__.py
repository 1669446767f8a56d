"""Alerts: findings become a few messages, and resolve by themselves.

`decide` is pure: what fires, what is told to whom, and what is over follows from the state, the findings and the time.
"""
