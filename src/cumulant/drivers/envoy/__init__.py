"""`envoy://`: the port `traffic` by an Envoy process that its own supervisor starts and stops."""
