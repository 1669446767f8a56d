"""Quantization: smaller or faster forms of a graph within a declared loss of accuracy.

Needs `onnx` (the extra `train`).
"""
