"""Reasons of answers: requested, found by occlusion, returned."""
