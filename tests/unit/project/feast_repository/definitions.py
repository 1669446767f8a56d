"""Features of drivers and of places, in the ways in which Feast has them."""

from datetime import timedelta

import pandas as pd
from feast import (
    BatchFeatureView,
    BigQuerySource,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    KafkaSource,
    PushSource,
    RequestSource,
    StreamFeatureView,
    ValueType,
)
from feast.aggregation import Aggregation
from feast.data_format import JsonFormat
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Float64, Int64, String

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64, description="a driver")
place = Entity(name="place", join_keys=["place_id"], value_type=ValueType.STRING)
account = Entity(name="account", value_type=ValueType.STRING)

stats = FileSource(
    name="driver_stats_source",
    path="data/driver_stats.parquet",
    timestamp_field="event_timestamp",
    created_timestamp_column="created",
)
plain = FileSource(
    name="place_source",
    path="data/place.parquet",
    timestamp_field="at",
    field_mapping={"Rides-Hour": "rides_hour"},
)
inferred = FileSource(name="grade_source", path="data/grade.parquet", timestamp_field="event_timestamp")
warehouse = BigQuerySource(name="accounts", table="acme.accounts", timestamp_field="updated")
pushed = PushSource(name="driver_push", batch_source=stats)
clicks = KafkaSource(
    name="clicks",
    kafka_bootstrap_servers="broker:9092",
    topic="clicks",
    timestamp_field="event_timestamp",
    batch_source=stats,
    message_format=JsonFormat(schema_json="driver_id integer, clicks integer"),
    watermark_delay_threshold=timedelta(minutes=5),
)
request = RequestSource(name="ride", schema=[Field(name="distance", dtype=Float64)])

driver_stats = FeatureView(
    name="driver_stats",
    entities=[driver],
    ttl=timedelta(days=1),
    schema=[
        Field(name="conv_rate", dtype=Float32, description="share of requests accepted"),
        Field(name="trips", dtype=Int64),
        Field(name="embedding", dtype=Array(Float32)),
    ],
    source=pushed,
    owner="rides@example.com",
    description="hourly statistics",
    tags={"team": "rides"},
)
place_stats = FeatureView(
    name="place_stats",
    entities=[place],
    ttl=timedelta(hours=36),
    schema=[Field(name="rides_hour", dtype=Int64), Field(name="trips", dtype=Int64)],
    source=plain,
)
pair_stats = FeatureView(
    name="pair-stats",
    entities=[driver, place],
    schema=[Field(name="grade", dtype=String)],
    source=inferred,
    ttl=timedelta(0),
)
grade_all = BatchFeatureView(name="grade_all", entities=[driver, place], source=inferred, ttl=timedelta(days=7))
account_stats = FeatureView(
    name="account_stats",
    entities=[account],
    schema=[Field(name="balance", dtype=Float64)],
    source=warehouse,
    ttl=timedelta(days=1),
)
everywhere = FeatureView(name="weather", schema=[Field(name="rain", dtype=Float64)], source=inferred)
click_windows = StreamFeatureView(
    name="click_windows",
    entities=[driver],
    ttl=timedelta(days=1),
    schema=[Field(name="clicks", dtype=Int64)],
    source=clicks,
    timestamp_field="event_timestamp",
    aggregations=[Aggregation(column="clicks", function="sum", time_window=timedelta(hours=1))],
    mode="spark",
)


@on_demand_feature_view(sources=[driver_stats, request], schema=[Field(name="trips_per_km", dtype=Float64)])
def ratio(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"trips_per_km": inputs["trips"] / inputs["distance"]})


eta = FeatureService(name="eta", features=[driver_stats[["conv_rate"]], place_stats])
price = FeatureService(name="price", features=[driver_stats, ratio], owner="pricing@example.com")
