"""Releases: start, actions, rollback, plan, simulation, and the controller that carries them out."""
