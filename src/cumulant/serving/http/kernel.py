"""State of a connection in the kernel."""

from __future__ import annotations

import socket
import struct
import sys

_INT = struct.Struct("i")


def count_unsent(connection: socket.socket | None) -> int:
    """Bytes in the system's own buffer that the other end has not confirmed; 0 where the system does not tell.

    It tells of a client that takes a few bytes now and then long before there is room for more in that buffer.
    """
    if connection is None or sys.platform != "linux":
        return 0
    import fcntl
    import termios

    try:
        return int(_INT.unpack(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(_INT.size)))[0])
    except OSError:  # it is being closed
        return 0
