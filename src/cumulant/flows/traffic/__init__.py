"""Routes and exchanges of all gateways of an environment, by the journal and the log; the agent of a gateway."""
