"""One folder a technology. Each enters by its entry point in the group `cumulant.drivers`."""
