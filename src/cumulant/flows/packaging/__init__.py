"""Servables and images from models, foreign ones included."""
