"""What a caller of each gRPC method does: one of the declared actions; None where there is nothing to allow."""

from __future__ import annotations

from collections.abc import Mapping

from cumulant.serving.endpoints.authorization import PREDICT
from cumulant.serving.grpc.messages import SERVICE

HEALTH = "grpc.health.v1.Health"
REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
SERVICES = (SERVICE, HEALTH, *REFLECTION)
#: methods of an extension that this server lacks: refused to all
SHARED_MEMORY = tuple(
    f"{kind}SharedMemory{verb}" for kind in ("System", "Cuda") for verb in ("Status", "Register", "Unregister")
)
SHOW = "server.show"
_INFERENCE: Mapping[str, str | None] = {
    "ServerLive": None,
    "ServerReady": None,
    "ServerMetadata": SHOW,
    "ModelReady": SHOW,
    "ModelMetadata": SHOW,
    "ModelConfig": SHOW,
    "ModelStatistics": SHOW,
    "RepositoryIndex": SHOW,
    "RepositoryModelLoad": "model.load",
    "RepositoryModelUnload": "model.load",
    "ModelInfer": PREDICT,
    "ModelStreamInfer": PREDICT,
    **dict.fromkeys(SHARED_MEMORY),
}


def method_name(method: str, service: str = SERVICE) -> str:
    """The name of a method as calls carry it."""
    return f"/{service}/{method}"


#: by the name of a method with its service
METHOD_ACTIONS: Mapping[str, str | None] = {
    **{method_name(method): action for method, action in _INFERENCE.items()},
    **{method_name(method, HEALTH): None for method in ("Check", "Watch")},
    **{method_name("ServerReflectionInfo", service): SHOW for service in REFLECTION},
}
