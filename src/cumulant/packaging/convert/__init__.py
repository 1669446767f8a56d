"""Conversion of foreign models to graphs, compared with the original."""
