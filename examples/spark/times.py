"""Where the time of one spark-submit went, from what Bobbin and Spark's event log say.

Usage: times.py NAME BEGIN END STATUS EVENTS
BEGIN and END are spark-submit's, in milliseconds of the epoch; STATUS is a file with `bobbin app status -o json`;
EVENTS is Spark's event log. Prints one line a step, with the seconds it took and who took them.
"""

import json
import sys


def steps(begin, end, status, events):
    """Steps in order: (name, who, its end in ms). A step lasts from the end of the one before it."""
    submitted = status["submitted_ms"]
    master = status["attempts"][-1].get("launched_ms") or status["attempts"][-1]["started_ms"]
    first = {}
    last = {}
    for event in events:
        kind = event["Event"].replace("SparkListener", "")
        when = (event.get("Timestamp") or event.get("Submission Time") or event.get("Completion Time")
                or event.get("Task Info", {}).get("Launch Time"))
        if when:
            first.setdefault(kind, when)
            last[kind] = when
    found = [
        ("the client starts, uploads, submits", "Spark", submitted),
        ("the master's container is granted and started", "Bobbin", master),
        ("SparkContext; the application is registered", "Spark", first.get("ApplicationStart")),
        ("executors are asked for, started, connect", "Spark and Bobbin", first.get("ExecutorAdded")),
        ("until the first task", "Spark", first.get("TaskStart")),
        ("the job's tasks", "Spark", last.get("JobEnd")),
        ("the end is noticed by the client", "Spark", end),
    ]
    ordered = sorted((step for step in found if step[2]), key=lambda step: step[2])
    before = begin
    for name, who, at in ordered:
        yield name, who, (at - before) / 1000
        before = at


def main(name, begin, end, status, events):
    with open(status) as file:
        status = json.load(file)
    with open(events) as file:
        events = [json.loads(line) for line in file if line.startswith("{")]
    begin, end = int(begin), int(end)
    print("%-8s %8.2f s in all" % (name, (end - begin) / 1000))
    for what, who, seconds in steps(begin, end, status, events):
        print("         %8.2f s  %-46s %s" % (seconds, what, who))


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])
