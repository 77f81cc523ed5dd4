"""A program whose own code fails: by an exception, or by its exit status.

Usage: failing.py exception|STATUS
"""

import sys

from pyspark.sql import SparkSession

spark = SparkSession.builder.appName("failing").getOrCreate()
print("count %d" % spark.sparkContext.parallelize(range(10), 2).count(), flush=True)
if sys.argv[1] == "exception":
    raise ValueError("the program's own mistake")
sys.exit(int(sys.argv[1]))
