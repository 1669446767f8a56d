"""The embedded drivers: a model's whole life on one machine, with nothing to install or start."""
