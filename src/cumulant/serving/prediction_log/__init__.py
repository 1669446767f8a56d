"""The prediction log: requests and predictions, written off the request's path by a process of its own.

`LogClient` is the worker's end and never waits; `ConfirmedClient` is for responses that wait until their rows are
durable; `log_command` starts the process; `find_predictions`, `recent_predictions`, `find_gaps`, `scan` and
`iterate_files` read. pyarrow is imported in the process and by
readers only.
"""
