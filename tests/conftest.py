"""What holds for every test."""

from __future__ import annotations

import os

# A test process that has spoken gRPC forks children of its own later: gRPC's handlers would write into their logs
# between fork and exec. Read when gRPC is first imported, which no test module may do before this file.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
