"""An image that holds the data plane and one servable: its build folder, and the tool that builds it."""

from cumulant.runtime.image.build import TOOLS, build_image, found_tool
from cumulant.runtime.image.context import DEFAULT_BASE, check_folder, checked_reference, write_context
from cumulant.runtime.image.dockerfile import Serving, serving
from cumulant.runtime.image.running import Running, running

__all__ = [
    "DEFAULT_BASE",
    "TOOLS",
    "Running",
    "Serving",
    "build_image",
    "check_folder",
    "checked_reference",
    "found_tool",
    "running",
    "serving",
    "write_context",
]
