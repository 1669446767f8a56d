"""The data plane: a program of its own that answers from servable folders.

It needs the extra `serve` (numpy, onnxruntime, httptools, uvloop, grpcio, pyarrow) and msgspec, and reads nothing but
the folders it is given and the online state that their feature plans name.
"""
