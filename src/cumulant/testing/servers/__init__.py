"""Real servers of tests and demos, each a process of its own, and machines that share them."""
