"""Who sends a request to a server, whether the policy in force allows it, and the record of refusals."""
