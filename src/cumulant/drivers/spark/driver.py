"""The record of Spark. Importing this loads no engine."""

from __future__ import annotations

from cumulant.ports.driver import Driver

connect = Driver(clients={"history": "cumulant.drivers.spark.engine:SparkEngine"}, extra="spark")
