#!/usr/bin/env python3
"""Packs the folders of a corpus into one file each, and unpacks them: thousands of tiny files are a
burden to a repository. The form: for each input, its length in 32 bits, big endian, and its bytes.

Usage: corpus.py pack FOLDER FILE | corpus.py unpack FILE FOLDER
"""

import hashlib
import os
import struct
import sys


def pack(folder, file):
    inputs = []
    for name in os.listdir(folder):
        with open(os.path.join(folder, name), "rb") as one:
            inputs.append(one.read())
    # The same inputs give the same file.
    inputs.sort(key=lambda data: (len(data), data))
    with open(file, "wb") as out:
        for data in inputs:
            out.write(struct.pack(">I", len(data)) + data)


def unpack(file, folder):
    os.makedirs(folder, exist_ok=True)
    with open(file, "rb") as packed:
        while head := packed.read(4):
            data = packed.read(struct.unpack(">I", head)[0])
            with open(os.path.join(folder, hashlib.sha1(data).hexdigest()), "wb") as one:
                one.write(data)


if len(sys.argv) != 4 or sys.argv[1] not in ("pack", "unpack"):
    sys.exit(__doc__)
{"pack": pack, "unpack": unpack}[sys.argv[1]](sys.argv[2], sys.argv[3])
