"""Synthetic inputs to measure a model's cost before its first request."""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import prod

import numpy as np

from cumulant.servable.engine import Array


def make_noise(shape: Sequence[int], seed: int) -> Array:
    """Float64 evenly spread over -2 to 2, equal for one seed. numpy's generators would take 3 MB of an idle worker."""
    drawn = random.Random(seed).randbytes(4 * prod(shape))  # noqa: S311 - nothing secret
    return np.frombuffer(drawn, dtype=np.uint32).reshape(shape) * 2.0**-30 - 2.0
