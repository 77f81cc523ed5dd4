"""Makes a golden file of a recording: first frames of each kind, each with a comment that says what it is.

Usage: annotate.py RECORDING TITLE > FILE
Of calls that are repeated (getApplicationReport, allocate) the first few are kept, with their answers.
"""

import sys

KEPT = {"getApplicationReport": 2, "allocate": 4, "startContainers": 2}
SPECIAL = {-3: "connection context", -4: "ping", -33: "SASL"}
STATES = {0: "SUCCESS", 1: "NEGOTIATE", 2: "INITIATE", 3: "CHALLENGE", 4: "RESPONSE", 5: "WRAP"}


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def delimited(data, at):
    size, at = varint(data, at)
    return data[at:at + size], at + size


def fields(message):
    """Field numbers with their last values; enough for headers."""
    found, at = {}, 0
    while at < len(message):
        key, at = varint(message, at)
        if key & 7 == 0:
            found[key >> 3], at = varint(message, at)
        elif key & 7 == 2:
            found[key >> 3], at = delimited(message, at)
        else:
            at += 4 if key & 7 == 5 else 8
    return found


def call_id(value, zigzag):
    value = (value >> 1) ^ -(value & 1) if zigzag else value
    return value - (1 << 32) if value >= 1 << 31 else value


def main(path, title):
    print("# %s" % title)
    seen, greeted, methods, kept = {}, set(), {}, set()
    for line in open(path):
        connection, port, way, data = line.split()
        data = bytes.fromhex(data)
        if way == "C>S" and connection not in greeted:
            greeted.add(connection)
            what = "connection header, authentication byte %02x" % data[6]
            print("# connection %s, %s: %s\n%s" % (connection, port, what, line.strip()))
            continue
        header, at = delimited(data, 4)
        header = fields(header)
        if way == "C>S":
            number = call_id(header[3], True)
        else:
            number = call_id(header[1], False)
        if number in SPECIAL:
            what = SPECIAL[number]
            if number == -33 and at < len(data):
                what += " " + STATES.get(fields(delimited(data, at)[0]).get(2), "?")
            print("# %s, %s\n%s" % (what, "client" if way == "C>S" else "server", line.strip()))
            continue
        key = (connection, number)
        if way == "C>S":
            method = fields(delimited(data, at)[0])[1].decode()
            seen[method] = seen.get(method, 0) + 1
            methods[key] = method
            if seen[method] > KEPT.get(method, 1):
                continue
            kept.add(key)
            print("# call %d: %s (%d)\n%s" % (number, method, seen[method], line.strip()))
        elif key in kept:
            words = "answer" if header.get(2, 0) == 0 else "refusal"
            print("# call %d: %s of %s\n%s" % (number, words, methods[key], line.strip()))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
