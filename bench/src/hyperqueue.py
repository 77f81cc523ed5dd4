"""HyperQueue's own server and worker in this process; one job per line of the input.

A line is a number of tasks. Each task writes one line, which HyperQueue keeps in a file. The answer is
the word "answer", the time from the submission to the last task's output in seconds, and how many
outputs are whole. HyperQueue writes lines of its own between them.
"""

import os
import shutil
import sys
import tempfile
import time

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

cores, program = int(sys.argv[1]), sys.argv[2]
# Progress bars of the library are nobody's answer.
sys.stderr = open(os.devnull, "w")
with tempfile.TemporaryDirectory(prefix="bobbin-bench-hq-") as folder:
    with LocalCluster(os.path.join(folder, "server"), WorkerConfig(cores=cores)) as cluster:
        client = cluster.client()
        print("answer ready", flush=True)
        for line in sys.stdin:
            count = int(line)
            outputs = os.path.join(folder, "outputs")
            os.mkdir(outputs)
            job = Job(default_workdir=outputs)
            for number in range(1, count + 1):
                job.program(
                    [program, str(number)],
                    stdout=os.path.join(outputs, f"{number}"),
                    stderr=None,
                )
            start = time.time()
            client.wait_for_jobs([client.submit(job)])
            whole, last = 0, start
            for number in range(1, count + 1):
                path = os.path.join(outputs, f"{number}")
                last = max(last, os.stat(path).st_mtime)
                with open(path) as file:
                    whole += file.read() == f"{number}\n"
            print("answer", last - start, whole, flush=True)
            shutil.rmtree(outputs)
