"""Records that cannot be changed unnoticed: signed checkpoints of the event chain, and events in standard formats."""
