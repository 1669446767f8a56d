"""The data plane: a program of its own that answers from servable folders.

It needs numpy, onnxruntime, msgspec and uvicorn, and reads nothing but the folders it is given and the
online state that their feature plans name.
"""
