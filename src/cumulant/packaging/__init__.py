"""Packaging of trained models as servables: one folder that gives the model's answers.

Building needs onnx; scoring needs numpy, onnxruntime and msgspec only.
"""
