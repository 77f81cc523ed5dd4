"""Where the time of one spark-submit went, from what Bobbin and Spark's event log say.

Usage: times.py NAME BEGIN END STATUS EVENTS LOGS
BEGIN and END are spark-submit's, in milliseconds of the epoch; STATUS is a file with `bobbin app status -o json`;
EVENTS is Spark's event log; LOGS is the folder with the logs of the cluster's nodes. Prints one line a step, with the seconds it took and who took them.
"""

import glob
import json
import os
import sys


def commands_started(logs, application):
    """When each container's command began, in ms: its shell made stdout and stderr in the log folder then."""
    folders = glob.glob(os.path.join(logs, "*", application, "container_*"))
    return {os.path.basename(folder): os.stat(folder).st_mtime * 1000 for folder in folders}


def steps(begin, end, status, events, logs):
    """Steps in order: (name, who, its end in ms). A step lasts from the end of the one before it."""
    started = commands_started(logs, status["id"])
    master = started.pop(status["attempts"][-1]["container"], None)
    executors = min(started.values(), default=None)
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
        ("the client starts, uploads, submits", "Spark", status["submitted_ms"]),
        ("the master's command runs on a node", "Bobbin", master),
        ("the driver's virtual machine begins its SparkContext", "Spark", first.get("ApplicationStart")),
        ("executors are asked for, the first one's command runs", "Spark, then Bobbin", executors),
        ("the first executor's virtual machine is connected", "Spark", first.get("ExecutorAdded")),
        ("the program comes to its first task", "Spark", first.get("TaskStart")),
        ("the job's tasks", "Spark", last.get("JobEnd")),
        ("the end is noticed by the client", "Spark", end),
    ]
    ordered = sorted((step for step in found if step[2]), key=lambda step: step[2])
    before = begin
    for name, who, at in ordered:
        yield name, who, (at - before) / 1000
        before = at


def main(name, begin, end, status, events, logs):
    with open(status) as file:
        status = json.load(file)
    with open(events) as file:
        events = [json.loads(line) for line in file if line.startswith("{")]
    begin, end = int(begin), int(end)
    print("%-8s %8.2f s in all" % (name, (end - begin) / 1000))
    for what, who, seconds in steps(begin, end, status, events, logs):
        print("         %8.2f s  %-54s %s" % (seconds, what, who))


if __name__ == "__main__":
    if len(sys.argv) != 7:
        sys.exit(__doc__)
    main(*sys.argv[1:])
