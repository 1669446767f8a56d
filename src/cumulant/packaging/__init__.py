"""Packaging of trained models as servables: one folder that gives the model's answers."""
