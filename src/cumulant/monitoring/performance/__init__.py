"""Quality of a model in production: with labels, without them, and harm by windows."""
