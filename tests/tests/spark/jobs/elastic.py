"""Load, then rest until a file is there, then load again: executors come, go and come back.

Usage: elastic.py FILE; client mode only, since the file is one of this host.
"""

import os
import sys
import time

from pyspark.sql import SparkSession


def load(sc):
    def slowly(number):
        time.sleep(0.5)
        return number

    return sc.parallelize(range(24), 24).map(slowly).map(lambda n: (n % 3, n)).groupByKey().count()


sc = SparkSession.builder.appName("elastic").getOrCreate().sparkContext
print("first %d" % load(sc), flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.1)
print("second %d" % load(sc), flush=True)
sc.stop()
