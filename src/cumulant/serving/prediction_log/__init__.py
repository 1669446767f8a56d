"""The prediction log: what was asked and answered, written off the request's path by a process of its own.

`LogClient` stands in a worker and never waits, `ConfirmedClient` is for answers that wait for their rows; `command`
starts the process; `find`, `recent`, `gaps`, `scan` and `stored` read. pyarrow is imported in the process and by
readers only.
"""
