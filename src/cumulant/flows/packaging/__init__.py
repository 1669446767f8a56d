"""Servables and images from models, also from those that were made elsewhere."""
