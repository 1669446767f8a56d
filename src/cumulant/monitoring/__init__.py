"""How a served model is watched, and what is done about what is seen."""
