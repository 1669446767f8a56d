"""Message classes of the protocol, from the descriptors that protoc makes of `open_inference_grpc.proto`.

Descriptors rather than a generated module: that would need the newest protobuf, which clients such as `tritonclient` do
not take, and register the protocol's names in the default pool, where such clients register theirs (ADR 15).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass


def _read_file() -> FileDescriptorProto:
    (file,) = FileDescriptorSet.FromString(Path(__file__).with_name("open_inference_grpc.binpb").read_bytes()).file
    return file


FILE = _read_file()
SERVICE = f"{FILE.package}.GRPCInferenceService"
_POOL = DescriptorPool()
_POOL.Add(FILE)


def message_class(name: str) -> Any:
    """The class of a message, such as `ModelInferRequest`."""
    return GetMessageClass(_POOL.FindMessageTypeByName(f"{FILE.package}.{name}"))


def field_number(message: str, field: str) -> int:
    return int(_POOL.FindFieldByName(f"{FILE.package}.{message}.{field}").number)
