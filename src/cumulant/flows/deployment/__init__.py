"""Where versions are served: the desired state on one machine or on many, and what each machine does for it."""
