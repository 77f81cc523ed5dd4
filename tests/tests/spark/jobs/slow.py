"""Two stages whose tasks take a moment each, so that there is a middle to be killed in.

Usage: slow.py TASKS SECONDS; prints the attempt, that it has started, and a sum that is known.
"""

import os
import re
import sys
import time
from operator import add

from pyspark.sql import SparkSession

tasks, seconds = int(sys.argv[1]), float(sys.argv[2])


def slowly(number):
    time.sleep(seconds)
    return number % 10, number


sc = SparkSession.builder.appName("slow").getOrCreate().sparkContext
container = re.search(r"_(\d+)_\d+$", os.environ.get("CONTAINER_ID", ""))
print("attempt %d" % (int(container.group(1)) if container else 0), flush=True)
print("started", flush=True)
sums = sc.parallelize(range(tasks), tasks).map(slowly).reduceByKey(add, 4).collect()
print("sum %d" % sum(value for _, value in sums), flush=True)
sc.stop()
