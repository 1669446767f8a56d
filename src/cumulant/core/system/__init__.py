"""The machine: memory, disk errors, private files, standard error, user code."""
