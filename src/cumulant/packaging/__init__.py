"""From a trained model to a servable: one folder that answers as the model did.

`Scorer` and `load_servable` need numpy, onnxruntime and msgspec only; `build` also needs onnx.
"""
