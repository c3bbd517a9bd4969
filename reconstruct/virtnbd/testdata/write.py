"""Writes a stream with the modules of an installed virtnbdbackup.

usage: write.py DISK STREAM EXTENTS COMPRESS LEVEL REQUEST [VERSION]

EXTENTS is a JSON list of [data, offset, length], COMPRESS is JSON as in the meta
frame, REQUEST is how much is read of the disk at once.
"""
import json
import os
import sys
from argparse import Namespace

from libvirtnbdbackup.sparsestream import streamer, types


def writers():
    """The functions that write payloads, as this release has them."""
    try:
        from libvirtnbdbackup.common import common as lib

        return lib.writeBlock, lib.writeChunk
    except (ImportError, AttributeError):
        from libvirtnbdbackup import block, chunk

        bar = Namespace(update=lambda n: None)
        return block.write, lambda w, e, c, t, z: chunk.write(w, e, c, t, z, bar)


class Disk:
    """Stands for the connection to an NBD server."""

    def __init__(self, path, request):
        self.fd = os.open(path, os.O_RDONLY)
        self.maxRequestSize = request
        self.nbd = self

    def pread(self, length, offset):
        return os.pread(self.fd, length, offset)


def main():
    disk, out, extents, compress, level, request = sys.argv[1:7]
    compress = json.loads(compress)
    extents = [Namespace(data=d, offset=o, length=n) for d, o, n in json.loads(extents)]
    version = int(sys.argv[7]) if len(sys.argv) > 7 else 2
    stream = streamer.SparseStream(types, version)
    kinds = types.SparseStreamTypes()
    con = Disk(disk, int(request))
    args = Namespace(cpt=Namespace(name="virtnbdbackup.0", parent=""), compress=compress, level=level)
    block, chunk = writers()
    sizes = []
    with open(out, "wb") as w:
        total = sum(e.length for e in extents if e.data)
        meta = stream.dumpMetadata(args, os.stat(disk).st_size, total, Namespace(target="sda", format="qcow2"))
        stream.writeFrame(w, kinds.META, 0, len(meta))
        w.write(meta + kinds.TERM)
        for e in extents:
            if not e.data:
                if level not in ("inc", "diff"):
                    stream.writeFrame(w, kinds.ZERO, e.offset, e.length)
                continue
            stream.writeFrame(w, kinds.DATA, e.offset, e.length)
            if e.length >= con.maxRequestSize:
                size, parts = chunk(w, e, con, "stream", compress)
                sizes.append({size: parts} if parts else size)
            else:
                sizes.append(block(w, e, con, "stream", compress))
            w.write(kinds.TERM)
        stream.writeFrame(w, kinds.STOP, 0, 0)
        if compress:
            stream.writeCompressionTrailer(w, sizes)


main()
