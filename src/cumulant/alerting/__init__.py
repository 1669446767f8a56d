"""Alerts: findings become a few messages that say what moved, and end by themselves.

`decide` is pure: what fires, what is told to whom, and what is over follows from the state, the findings and the time.
"""
