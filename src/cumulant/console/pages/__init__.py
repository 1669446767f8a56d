"""The pages: each module reads by flows and renders its templates."""
