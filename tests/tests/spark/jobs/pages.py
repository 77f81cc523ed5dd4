"""One RDD job and one SQL query, then the pages stay open until a file is there.

Usage: pages.py FILE; client mode only, since the file is one of this host.
"""

import os
import sys
import time

from pyspark.sql import SparkSession

spark = SparkSession.builder.appName("pages").getOrCreate()
print("count %d" % spark.sparkContext.parallelize(range(1000), 4).count(), flush=True)
rows = spark.sql("SELECT id % 7 AS k, count(*) FROM range(1000) GROUP BY 1").collect()
print("rows %d" % len(rows), flush=True)
print("ready", flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.1)
spark.stop()
