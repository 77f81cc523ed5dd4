"""Records what passes over loopback to and from Hadoop's ports: the source of the golden files beside it.

Usage (as root): record.py OUT NAME=PORT...   until it is interrupted
For example: record.py spark.log 8032=21001 8030=21002 8041=21003
Nothing is changed on the way: it listens to the loopback device and puts the TCP streams together.
OUT gets one line a frame: connection, NAME, direction (C>S or S>C), hexadecimal bytes.
"""

import signal
import socket
import struct
import sys


class Stream:
    """One direction of one connection, cut into frames of Hadoop's RPC."""

    def __init__(self, client):
        self.next = None
        self.later = {}
        self.bytes = b""
        # A client begins with 7 bytes that have no length before them.
        self.header = client

    def add(self, sequence, payload):
        if self.next is None:
            self.next = sequence
        self.later.setdefault(sequence, payload)
        while self.next in self.later:
            part = self.later.pop(self.next)
            self.bytes += part
            self.next = (self.next + len(part)) % (1 << 32)

    def frames(self):
        if self.header and len(self.bytes) >= 7:
            self.header = False
            first, self.bytes = self.bytes[:7], self.bytes[7:]
            yield first
        while not self.header and len(self.bytes) >= 4:
            size = 4 + struct.unpack(">I", self.bytes[:4])[0]
            if len(self.bytes) < size:
                return
            first, self.bytes = self.bytes[:size], self.bytes[size:]
            yield first


def main(out, ports):
    device = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0003))
    # SO_RCVBUFFORCE: a burst of other traffic must not push packets out.
    device.setsockopt(socket.SOL_SOCKET, 33, 512 << 20)
    device.bind(("lo", 0))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    streams, numbers = {}, {}
    with open(out, "w", buffering=1) as file:
        while True:
            packet, address = device.recvfrom(1 << 20)
            # Every packet of loopback is seen twice: sent and received.
            if address[2] == socket.PACKET_OUTGOING or packet[0] >> 4 != 4 or packet[9] != 6:
                continue
            begin = (packet[0] & 15) * 4
            total = struct.unpack(">H", packet[2:4])[0] or len(packet)
            source, target, sequence = struct.unpack(">HHI", packet[begin:begin + 8])
            flags = packet[begin + 13]
            payload = packet[begin + (packet[begin + 12] >> 4) * 4:total]
            if target in ports:
                name, way, other = ports[target], "C>S", source
            elif source in ports:
                name, way, other = ports[source], "S>C", target
            else:
                continue
            key = (name, way, other)
            if flags & 2 and way == "C>S":
                numbers[(name, other)] = len(numbers) + 1
            if flags & 2:
                streams[key] = Stream(way == "C>S")
                streams[key].next = (sequence + 1) % (1 << 32)
            elif payload and key in streams:
                streams[key].add(sequence, payload)
                for frame in streams[key].frames():
                    file.write("%d %s %s %s\n" % (numbers.get((name, other), 0), name, way, frame.hex()))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], {int(port): name for name, port in (word.split("=") for word in sys.argv[2:])})
