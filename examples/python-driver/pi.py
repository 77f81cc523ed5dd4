#!/usr/bin/env python3
"""Monte Carlo pi: a driver in Python over the socket that every driver has, with stock grpcio.

Needs `pip install grpcio grpcio-tools`. The stubs are made from Bobbin's .proto files at the start;
a driver that is deployed would carry them along.

    bobbin submit --num-executors 2 -- ./pi.py 20 200000

With --arrow, tasks hand out their result as an Arrow IPC stream, which Bobbin checks; driver and tasks then
run in this Python and need `pip install pyarrow` too.
"""
import io
import os
import pathlib
import sys
import tempfile

import grpc
import grpc_tools
from grpc_tools import protoc

PROTO = pathlib.Path(os.environ.get("BOBBIN_PROTO", pathlib.Path(__file__).resolve().parents[2] / "proto"))

# What a task runs: the executor's node needs only a python3.
THROWS = """
import random, sys
random.seed(int(sys.argv[1]))
n = int(sys.argv[2])
print(sum(random.random() ** 2 + random.random() ** 2 <= 1 for _ in range(n)))
"""

# The same as a table of one row; words would go to stderr.
THROWS_ARROW = """
import random, sys
import pyarrow as pa
random.seed(int(sys.argv[1]))
n = int(sys.argv[2])
hits = sum(random.random() ** 2 + random.random() ** 2 <= 1 for _ in range(n))
table = pa.table({"hits": [hits], "throws": [n]})
with pa.ipc.new_stream(sys.stdout.buffer, table.schema) as writer:
    writer.write_table(table)
"""


def stubs():
    """Imports bobbin.v1.driver, generated into a folder that lives as long as this process."""
    folder = tempfile.TemporaryDirectory(prefix="bobbin-stubs-")
    google = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    files = [f"bobbin/v1/{name}.proto" for name in ("driver",)]
    arguments = ["protoc", f"-I{PROTO}", f"-I{google}", f"--python_out={folder.name}", f"--grpc_python_out={folder.name}"]
    if protoc.main(arguments + files) != 0:
        sys.exit(f"the .proto files in {PROTO} cannot be compiled")
    sys.path.insert(0, folder.name)
    from bobbin.v1 import driver_pb2, driver_pb2_grpc

    return folder, driver_pb2, driver_pb2_grpc


def main():
    arguments = sys.argv[1:]
    arrow = arguments[:1] == ["--arrow"]
    if arrow:
        arguments = arguments[1:]
    tasks = int(arguments[0]) if arguments else 10
    throws = int(arguments[1]) if len(arguments) > 1 else 100_000
    socket = os.environ.get("BOBBIN_DRIVER_SOCKET")
    if socket is None:
        sys.exit("BOBBIN_DRIVER_SOCKET is not set: start this with `bobbin submit`")
    _folder, pb, rpc = stubs()
    python, script = (sys.executable, THROWS_ARROW) if arrow else ("python3", THROWS)
    result_format = pb.RESULT_FORMAT_ARROW_IPC_STREAM if arrow else pb.RESULT_FORMAT_BYTES

    def requests():
        for seed in range(tasks):
            argv = [python, "-c", script, str(seed), str(throws)]
            yield pb.TaskRequest(task=pb.NewTask(task_id=seed, argv=argv, result_format=result_format))

    # grpcio would send the socket's path as the authority, which HTTP/2 does not allow.
    options = [("grpc.default_authority", "localhost")]
    with grpc.insecure_channel(f"unix:{socket}", options) as channel:
        driver = rpc.DriverStub(channel)
        info = driver.GetInfo(pb.GetInfoRequest())
        print(f"{info.application_id}, attempt {info.attempt}", file=sys.stderr)
        # The stage ends when all requests were sent and every task has ended.
        outputs = collect(driver.RunTasks(requests()))
    if arrow:
        import pyarrow as pa

        tables = [pa.ipc.open_stream(io.BytesIO(output)).read_all() for output in outputs]
        table = pa.concat_tables(tables)
        print(f"{table.num_rows} rows from {len(tables)} tasks", file=sys.stderr)
        hits = sum(table["hits"].to_pylist())
    else:
        hits = sum(int(output) for output in outputs)
    print(f"Pi is roughly {4 * hits / (tasks * throws):.5f}")


def collect(events):
    """The stdout of each task, in whatever order they ended."""
    outputs = {}
    for event in events:
        kind = event.WhichOneof("event")
        if kind == "running":
            print(f"task {event.task_id} runs on {event.running.node_id}", file=sys.stderr)
        elif kind == "output":
            # It may come in several pieces.
            outputs[event.task_id] = outputs.get(event.task_id, b"") + event.output.stdout
            sys.stderr.write(event.output.stderr.decode(errors="replace"))
        elif kind == "retry":
            print(f"task {event.task_id} is tried again: {event.retry.problem}", file=sys.stderr)
        elif kind == "ended" and (event.ended.exit_status != 0 or event.ended.problem):
            sys.exit(f"task {event.task_id} failed with {event.ended.exit_status}: {event.ended.problem}")
    return outputs.values()


if __name__ == "__main__":
    main()
