"""What users write in `features.py`, and the plan that it compiles to."""
