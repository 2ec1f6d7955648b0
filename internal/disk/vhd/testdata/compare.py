# Reads lines of "expected<TAB>base<TAB>child...", the tip of a chain last, and compares each chain with the file of
# expected bytes. Prints what differs.
# It reads a grain at a time: libvhdi 20210425 answers wrong bytes from a chain when one read covers several runs of a
# block.
import sys

import pyvhdi


def opened(paths):
    chain = []
    for path in paths:
        disk = pyvhdi.file()
        disk.open(path)
        if chain:
            if disk.get_parent_identifier() != chain[-1].get_identifier():
                raise IOError("%s names parent %s" % (path, disk.get_parent_identifier()))
            disk.set_parent(chain[-1])
        chain.append(disk)
    return chain


for line in sys.stdin:
    expected, *paths = line.rstrip("\n").split("\t")
    chain = opened(paths)
    with open(expected, "rb") as file:
        want = file.read()
    got = b"".join(chain[-1].read_buffer_at_offset(min(4096, len(want) - at), at) for at in range(0, len(want), 4096))
    if chain[-1].get_media_size() != len(want) or got != want:
        at = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
        print("differs:", paths[-1], "of", len(want), "bytes, at", at)
