"""The model server: a program of its own that scores requests with servables.

It needs the extra `serve` (numpy, onnxruntime, httptools, uvloop, grpcio and its packages for health and reflection,
pyarrow) and msgspec, and reads nothing but the folders it is given and the online state that their feature plans name.
"""
