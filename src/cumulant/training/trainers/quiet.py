"""How the libraries behave while models are fitted: on one core a product, and without their own words."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager


def one_thread_a_product() -> AbstractContextManager[object]:
    """Matrix products on one core: folds run beside each other, and waiting threads would stop them all."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return threadpool_limits(limits=1, user_api="blas")  # type: ignore[no-any-return]


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the libraries say to the developer of a study: one is made for each trial."""
    import optuna
    from sklearn.exceptions import ConvergenceWarning

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            # the linear model is a yardstick: nearly converged is good enough
            warnings.simplefilter("ignore", ConvergenceWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)
