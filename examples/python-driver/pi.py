#!/usr/bin/env python3
"""Monte Carlo pi: a driver in Python over the socket that every driver has, with stock grpcio.

Needs `pip install grpcio grpcio-tools`. The stubs are made from Bobbin's .proto files at the start;
a driver that is deployed would carry them along.

    bobbin submit --num-executors 2 -- ./pi.py 20 200000
"""
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
    tasks = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    throws = int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
    socket = os.environ.get("BOBBIN_DRIVER_SOCKET")
    if socket is None:
        sys.exit("BOBBIN_DRIVER_SOCKET is not set: start this with `bobbin submit`")
    _folder, pb, rpc = stubs()
    # grpcio would send the socket's path as the authority, which HTTP/2 does not allow.
    options = [("grpc.default_authority", "localhost")]
    with grpc.insecure_channel(f"unix:{socket}", options) as channel:
        driver = rpc.DriverStub(channel)
        info = driver.GetInfo(pb.GetInfoRequest())
        print(f"{info.application_id}, attempt {info.attempt}", file=sys.stderr)

        def requests():
            for seed in range(tasks):
                argv = ["python3", "-c", THROWS, str(seed), str(throws)]
                yield pb.TaskRequest(task=pb.NewTask(task_id=seed, argv=argv))

        hits = 0
        # The stage ends when all requests were sent and every task has ended.
        for event in driver.RunTasks(requests()):
            kind = event.WhichOneof("event")
            if kind == "running":
                print(f"task {event.task_id} runs on {event.running.node_id}", file=sys.stderr)
            elif kind == "output":
                hits += int(event.output.stdout or b"0")
                sys.stderr.write(event.output.stderr.decode(errors="replace"))
            elif kind == "retry":
                print(f"task {event.task_id} is tried again: {event.retry.problem}", file=sys.stderr)
            elif kind == "ended" and (event.ended.exit_status != 0 or event.ended.problem):
                sys.exit(f"task {event.task_id} failed with {event.ended.exit_status}: {event.ended.problem}")
    print(f"Pi is roughly {4 * hits / (tasks * throws):.5f}")


if __name__ == "__main__":
    main()
