"""Change detectors of single values in streams: ADWIN and Page-Hinkley, by river (extra `river`).

Their false alarms are not bounded over all looks as those of `add_window`, and a change is not harm.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from cumulant.core.errors import DataError, missing_part
from cumulant.statistics.rows import Codes, Floats

Detector = Literal["adwin", "page_hinkley"]


def changes(values: Floats, detector: Detector, **settings: float) -> Codes:
    """Positions in `values` [n], in order of time, at which the detector reported a change.

    ADWIN: Bifet and Gavalda 2007, Learning from time-changing data with adaptive windowing
    (doi:10.1137/1.9781611972771.42). Page-Hinkley: Page 1954, Continuous inspection schemes (doi:10.2307/2333009).
    `settings`: river's own, such as `delta` of ADWIN.

    Raises:
        DataError: a value is not finite, or river does not know a setting.
        MissingPartError: river is not installed.
    """
    if not np.isfinite(values).all():
        raise DataError("a stream has a value that is not finite", subject="values", hint="leave such rows out")
    watcher = _detector(detector, settings)
    places = []
    for place, value in enumerate(values.tolist()):
        watcher.update(value)
        if watcher.drift_detected:
            places.append(place)
    return np.asarray(places, dtype=np.int64)


def _detector(name: Detector, settings: dict[str, Any]) -> Any:
    try:
        from river import drift
    except ImportError:
        raise missing_part("river", "river") from None
    kind: Any = drift.ADWIN if name == "adwin" else drift.PageHinkley
    try:
        return kind(**settings)
    except TypeError as error:
        raise DataError(f"river's detector {name} refuses a setting: {error}", subject=name) from None
