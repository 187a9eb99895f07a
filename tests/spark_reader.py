"""A program for an environment with Spark: prints facts about tables, as JSON.

Standard input has {"ids": [names], "tables": {name: {"format": …, "path": …}}}. It imports nothing of ours.
"""

import json
import sys
from typing import Any

from pyspark.sql import DataFrame, SparkSession, functions
from pyspark.sql.types import LongType, StringType, StructField, StructType, TimestampType


def session() -> SparkSession:
    """Return a session of one thread, on the loopback interface only."""
    settings = {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "1",
    }
    builder = SparkSession.builder.master("local[1]")
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def facts(table: DataFrame, ids: list[str]) -> dict[str, Any]:
    """Return rows, the sum of each id, and the first and last event in microseconds, as text."""
    asked = [functions.count("*").alias("rows")]
    asked += [functions.sum(functions.col(name).cast("decimal(38,0)")).alias(name) for name in ids]
    micros = functions.unix_micros(functions.col("EventStart"))
    asked += [functions.min(micros).alias("first"), functions.max(micros).alias("last")]
    (found,) = table.agg(*asked).collect()
    return {name: None if value is None else str(value) for name, value in found.asDict().items()}


def main() -> None:
    """Read what is asked, and print the facts."""
    asked = json.load(sys.stdin)
    ids = asked["ids"]
    schema = StructType(
        [StructField(name, LongType()) for name in ids]
        + [StructField("EventStart", TimestampType()), StructField("EventType", StringType())]
    )
    spark = session()
    found = {}
    for name, place in asked["tables"].items():
        if place["format"] == "parquet":
            table = spark.read.parquet(place["path"])
            types = dict(table.dtypes)
            found[name] = {"types": [types["date"], types["EventStart"], types["UserId"]], **facts(table, ids)}
        else:
            found[name] = facts(spark.read.schema(schema).json(place["path"]), ids)
    print(json.dumps(found))  # noqa: T201 - read by the test


if __name__ == "__main__":
    main()
