"""Whether a served model still stands where it was trained: `drift` says what moved, and of what kind the change is."""
