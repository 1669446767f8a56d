"""Smaller or faster forms of a graph, each measured and held to a declared loss of accuracy.

Needs `onnx` (the extra `train`): it is work of packaging, not of serving.
"""
