"""numpy on the executors and a pandas_udf, with a Python that came by --archives.

Usage: vectors.py; prints where the executors' Python is, and results that are known.
"""

import sys

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql.functions import pandas_udf

spark = SparkSession.builder.appName("vectors").getOrCreate()


@pandas_udf("double")
def squared(column: pd.Series) -> pd.Series:
    return (column * column).astype("float64")


def where(_):
    import numpy
    import pyarrow

    return [(sys.prefix, numpy.__version__, pyarrow.__version__)]


for prefix, numpy_version, arrow_version in set(spark.sparkContext.range(2, numSlices=2).mapPartitions(where).collect()):
    print("python %s numpy %s pyarrow %s" % (prefix, numpy_version, arrow_version))
total = spark.range(1, 101).select(squared("id").alias("s")).groupBy().sum("s").collect()[0][0]
print("squares %d" % total)
means = spark.range(100).selectExpr("id % 4 AS k", "id AS v").groupBy("k").applyInPandas(
    lambda frame: pd.DataFrame({"k": [frame.k.iloc[0]], "mean": [frame.v.mean()]}), "k long, mean double")
print("means %s" % sorted((row.k, row.mean) for row in means.collect()))
spark.stop()
