"""Explanation methods, which a servable names and parametrizes."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from cumulant.core.errors import IntegrityError, RequestError
from cumulant.servable.description import Floats, Matrix
from cumulant.servable.scorer import Scorer


def make_explainer(scorer: Scorer) -> Occlusion:
    """Explanation method of the servable.

    Raises:
        IntegrityError: there is no such method here, or a reference value does not fit its feature.
    """
    servable = scorer.servable
    method = "" if servable.reasons is None else servable.reasons.method
    if method == "occlusion":
        return Occlusion(_reference(scorer))
    message = f'{servable.name} explains its answers by "{method[:60]}", which this server does not know'
    hint = "package the model again with this version of Cumulant"
    raise IntegrityError(message, subject=servable.name, hint=hint)


def _reference(scorer: Scorer) -> Matrix:
    """[k] The reference values as the model reads them."""
    given = {} if scorer.servable.reasons is None else scorer.servable.reasons.reference
    try:
        matrix: Matrix = scorer.encoder.matrix({name: [given.get(name)] for name in scorer.features})
    except RequestError as error:
        name = scorer.servable.name
        raise IntegrityError(f"the reference values of {name} do not fit it: {error.message}", subject=name) from None
    return matrix.reshape(-1)


class OccludedRows(msgspec.Struct, frozen=True):
    """Rows [m, k] of model inputs to score, with one feature at its reference value each; m may be 0."""

    rows: Matrix
    #: [m] index of the explained row
    owner: NDArray[np.int64]
    #: [m] the feature that was replaced
    place: NDArray[np.int64]
    shape: tuple[int, int]

    def contributions(self, scores: Floats, row_scores: Floats) -> Floats:
        """[n, k] of each feature, from the scores [n] of the explained rows and those [m] of `rows`."""
        contributions = np.zeros(self.shape)
        contributions[self.owner, self.place] = scores[self.owner] - row_scores
        return contributions


class Occlusion:
    """A feature's contribution is how the score changes when the feature alone is put to a reference value.

    After Robnik-Sikonja and Kononenko, "Explaining classifications for individual instances" (IEEE Transactions on
    Knowledge and Data Engineering 20(5), 2008), with one reference value in place of their average over all values.
    For a linear model it is w (x - reference), exactly; it is true to any model, since the model itself scores.

    Limits: contributions do not add up to the score where features interact; of features that say the same each may
    get nothing, since the others still say it; of correlated ones, rows are scored that do not occur.
    """

    def __init__(self, reference: Matrix) -> None:
        """`reference`: [k], missing as NaN."""
        self._reference = reference

    def select_rows(self, matrix: Matrix) -> OccludedRows:
        """Rows to score to explain these rows [n, k] of model inputs, missing values as NaN: one for each value that
        differs from its reference, as the others contribute nothing.
        """
        same = (matrix == self._reference) | (np.isnan(matrix) & np.isnan(self._reference))
        owner, place = np.nonzero(~same)
        rows = matrix[owner]
        rows[np.arange(len(rows)), place] = self._reference[place]
        return OccludedRows(rows, owner, place, (matrix.shape[0], matrix.shape[1]))
