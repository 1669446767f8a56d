"""Quantization: smaller or faster forms of a graph within a declared loss of accuracy; needs `onnx`."""
