"""Values that Feast looks up: `python feast_values.py REPOSITORY ROWS OUT`, with an interpreter that has Feast."""

import os
import sys

os.environ["FEAST_USAGE"] = "False"
repository, rows, out = sys.argv[1:]
os.chdir(repository)
sys.path.insert(0, repository)

import definitions  # noqa: E402
import pandas as pd  # noqa: E402
from feast import FeatureStore  # noqa: E402

views = [definitions.driver_stats, definitions.place_stats, definitions.pair_stats, definitions.grade_all]
store = FeatureStore(repo_path=repository)
store.apply([definitions.driver, definitions.place, *views])
entities = pd.read_parquet(rows)
entities["number"] = range(len(entities))
names = ["driver_stats:conv_rate", "driver_stats:trips", "place_stats:rides_hour", "place_stats:trips"]
names += ["pair-stats:grade", "grade_all:grade"]
store.get_historical_features(entities, names, full_feature_names=True).to_df().to_parquet(out)
