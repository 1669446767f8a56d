"""ONNX graphs of trained models: trees, linear models, perceptrons."""
