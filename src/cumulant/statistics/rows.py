"""Scored rows: what every metric reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Truth and prediction of n rows, and the cluster of each.

    truth: [n]; 0 or 1 for binary, the class position for multi-class, the value for regression.
    prediction: [n] probability of 1 or value; [n, classes] probabilities for multi-class.
    cluster: [n] codes from 0; rows of one cluster (a day, a customer) are drawn together. None: each row alone.
    decision: [n] whether a binary model decides for the positive class, for the metrics of decisions.
    cost_false_negative, cost_false_positive: [n] what a wrong decision of that row costs.
    """

    truth: Floats
    prediction: Floats
    cluster: Codes | None = None
    decision: Flags | None = None
    cost_false_negative: Floats | None = None
    cost_false_positive: Floats | None = None

    def __len__(self) -> int:
        return len(self.truth)

    def clusters(self) -> tuple[Codes, int]:
        """The code of each row's cluster and how many clusters there are."""
        if self.cluster is None:
            return np.arange(len(self), dtype=np.int64), len(self)
        return self.cluster, int(self.cluster.max()) + 1 if len(self.cluster) else 0

    def where(self, mask: Flags) -> Rows:
        """The rows of `mask`, with clusters numbered anew so that none is empty."""
        return Rows(
            truth=self.truth[mask],
            prediction=self.prediction[mask],
            cluster=None if self.cluster is None else cluster_codes(self.cluster[mask]),
            decision=None if self.decision is None else self.decision[mask],
            cost_false_negative=None if self.cost_false_negative is None else self.cost_false_negative[mask],
            cost_false_positive=None if self.cost_false_positive is None else self.cost_false_positive[mask],
        )


def cluster_codes(values: NDArray[Any]) -> Codes:
    """`values` [n] as codes from 0 to the number of distinct values less 1."""
    return np.unique(values, return_inverse=True)[1].astype(np.int64)
