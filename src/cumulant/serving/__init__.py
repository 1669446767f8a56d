"""The model server: a program of its own that scores requests with servables.

It needs numpy, onnxruntime, msgspec and httptools, and reads only the folders that it is started with and the online
state that their feature plans name.
"""
