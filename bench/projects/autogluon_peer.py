"""AutoGluon's answers to held-out rows. Run by an environment of its own, as `zero_edit.py --autogluon PYTHON` does.

    PYTHON autogluon_peer.py FOLDER TARGET SECONDS

FOLDER holds train.csv and test.csv; the answers, one a row of the test, are written to autogluon.csv. The preset is
medium_quality; texts of times are left as AutoGluon takes them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from autogluon.tabular import TabularPredictor


def main() -> None:
    folder, target, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    train, test = pd.read_csv(folder / "train.csv"), pd.read_csv(folder / "test.csv")
    binary = train[target].nunique() == 2
    predictor = TabularPredictor(
        label=target,
        path=str(folder / "autogluon"),
        problem_type="binary" if binary else "regression",
        eval_metric="log_loss" if binary else "root_mean_squared_error",
        verbosity=0,
    ).fit(train, presets="medium_quality", time_limit=seconds)
    answers = predictor.predict_proba(test)[sorted(predictor.class_labels)[1]] if binary else predictor.predict(test)
    pd.DataFrame({"answer": answers.to_numpy()}).to_csv(folder / "autogluon.csv", index=False)
    print(predictor.model_best)


if __name__ == "__main__":
    main()
