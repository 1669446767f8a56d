"""Readable messages of onnxruntime's errors, without its source locations and codes."""

from __future__ import annotations

import re

_LENGTH = 300
_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_NODE = re.compile(r"Non-zero status code returned while running (\w+) node\. Name:'([^']*)' Status Message: ")
#: a place in its sources, with the function as C++ writes it or by its name alone, and the condition that failed
_PLACE = re.compile(
    r"\S*\.(?:cc|cpp|cu|h|hpp):\d+ "
    r"(?:[^()]*::[^()]*\([^()]*\)(?: const)?(?: \[with [^\]]*\])? |\w+ )(?:.*? was false\. ?)?"
)
_MEMORY = re.compile(r"Failed to allocate memory for requested buffer of size (\d+)")
_NO_MEMORY = re.compile(_MEMORY.pattern + r"|bad_alloc|bad allocation|bad_array_new_length")
_FILE = re.compile(r"(?:Load model from )?(?:/[^\s:]+)+\.onnx failed:?\s*")


def lacks_memory(error: Exception) -> bool:
    """Whether a run failed since memory ended, rather than for the values that it was given."""
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None


def plain_message(error: Exception) -> str:
    """First line of an engine's error in at most 300 characters, with the operator that failed."""
    line = str(error).strip().split("\n", 1)[0]
    line = _FILE.sub("", _CODE.sub("", line))
    line = _NODE.sub(lambda match: f"{match[1]} ({match[2]}): " if match[2] else f"{match[1]}: ", line)
    line = _MEMORY.sub(lambda match: f"it needs {int(match[1]):,} bytes of memory at once", _PLACE.sub("", line))
    return line.strip()[:_LENGTH] or type(error).__name__
