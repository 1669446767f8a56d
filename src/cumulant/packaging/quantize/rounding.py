"""Weights as small whole numbers: which code each weight gets, and the scale that makes it a weight again."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: tried as the largest value that a code reaches, as shares of the group's largest weight: clipping
#: a few large weights may serve the many small ones
_CLIPS = np.linspace(0.55, 1.0, 19)
#: added to the diagonal of the second moments, as a share of its mean: some hundred rows say little about the
#: weaker directions, and trusting them costs more on other rows than it wins on these
_DAMPING = 1.0


class WeightCodes(NamedTuple):
    """Signed codes [outputs, inputs] of `bits` bits; a float16 scale for each `group` inputs of a row."""

    bits: int
    group: int
    values: NDArray[np.int64]
    scales: NDArray[np.float16]

    @property
    def weights(self) -> NDArray[np.float32]:
        wide = np.repeat(self.scales.astype(np.float32), self.group, axis=1)
        return self.values.astype(np.float32) * wide


def group_size(inputs: int, wanted: int) -> int:
    """The largest divisor of `inputs` up to `wanted`; all of them where that would be tiny."""
    largest = max(size for size in range(1, min(inputs, wanted) + 1) if inputs % size == 0)
    return largest if largest >= 8 else inputs


def round_weights(rows: Floats, bits: int, group: int, moments: Floats | None = None) -> WeightCodes:
    """Codes of `rows` [outputs, inputs].

    With the second moments [inputs, inputs] of the inputs, the error of each weight is compensated by those
    that follow it (Frantar et al., "GPTQ", 2022); without, each gets the nearest code.
    """
    if moments is None:
        groups = rows.reshape(len(rows), -1, group)
        scales = np.stack([_scales(groups[:, k], bits) for k in range(groups.shape[1])], axis=1)
        values = _round(groups, scales[:, :, None], bits).reshape(rows.shape)
        return WeightCodes(bits, group, values, scales.astype(np.float16))
    return _compensated(rows, bits, group, _inverse_root(moments))


def _compensated(rows: Floats, bits: int, group: int, root: Floats) -> WeightCodes:
    rest = rows.copy()
    values = np.empty(rows.shape, np.int64)
    scales = np.empty((len(rows), rows.shape[1] // group))
    for k, start in enumerate(range(0, rows.shape[1], group)):
        stop = start + group
        scales[:, k] = _scales(rest[:, start:stop], bits)
        errors = np.empty((len(rows), group))
        for j in range(start, stop):
            values[:, j] = _round(rest[:, j], scales[:, k], bits)
            errors[:, j - start] = (rest[:, j] - values[:, j] * scales[:, k]) / root[j, j]
            rest[:, j:stop] -= np.outer(errors[:, j - start], root[j, j:stop])
        rest[:, stop:] -= errors @ root[start:stop, stop:]
    return WeightCodes(bits, group, values, scales.astype(np.float16))


def _inverse_root(moments: Floats) -> Floats:
    """Upper triangular u with uᵀ u = (moments + damping)⁻¹."""
    damped = moments + np.eye(len(moments)) * max(_DAMPING * float(np.diag(moments).mean()), 1e-12)
    root: Floats = np.linalg.cholesky(np.linalg.inv(damped)).T
    return root


def _scales(groups: Floats, bits: int) -> Floats:
    """For each row of `groups` the float16 scale of least squared error."""
    top = 2 ** (bits - 1) - 1
    peak = np.abs(groups).max(axis=1)
    best, least = np.ones(len(groups)), np.full(len(groups), np.inf)
    for clip in _CLIPS if bits < 8 else _CLIPS[-1:]:
        scale = _as_half(peak * clip / top)
        error = ((_round(groups, scale[:, None], bits) * scale[:, None] - groups) ** 2).sum(axis=1)
        best, least = np.where(error < least, scale, best), np.minimum(error, least)
    return best


def _as_half(scale: Floats) -> Floats:
    """What float16 keeps of it: the codes are chosen for the scale that the file will hold."""
    half = np.clip(scale, 6e-5, 6e4).astype(np.float16)
    return half.astype(np.float64)


def _round(values: Any, scale: Any, bits: int) -> NDArray[np.int64]:
    top = 2 ** (bits - 1)
    codes: NDArray[np.int64] = np.clip(np.rint(values / scale), -top, top - 1).astype(np.int64)
    return codes
