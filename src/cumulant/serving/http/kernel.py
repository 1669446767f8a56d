"""State of a connection in the kernel."""

from __future__ import annotations

import socket
import struct
import sys

_INT = struct.Struct("i")


def count_unsent(connection: socket.socket | None) -> int:
    """Bytes in the system's buffer that the other end has not confirmed; 0 where the system does not report them."""
    if connection is None or sys.platform != "linux":
        return 0
    import fcntl
    import termios

    try:
        return int(_INT.unpack(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(_INT.size)))[0])
    except OSError:  # it is being closed
        return 0
