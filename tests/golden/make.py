#!/usr/bin/env python3
"""Writes the records of this folder, and the seeds of the fuzz targets, from the layouts that the
files of src/store/format, src/store/engine/{meta,leaf_padding}.rs, src/store/commit/loss_journal.rs
and src/store/api/applied.rs document, without using their code:

store.txt      what a store has of nine hints of node 258: two were delivered, one was lost, one is
               a dead letter, and one was a dead letter and is the ninth now
more.txt       records that take more to come to
padding.txt    the empty keys around three blocks of 2, 1 and 2 chunks with a hint each
wal.txt        a WAL record of a hint for node 258 and one for node 259, and the cursor of these
writes.txt     hints with the ids of their writes, and a cursor with a hint that was withdrawn
lifetimes.txt  hints with lifetimes
clock.txt      two clocks that were wrong
members.txt    who is in the cluster, and the record of a node that is paused and leaves
applied.txt    what a receiver remembers of hint 258
"""
import struct
from pathlib import Path

NODE, QUEUE, SHARD, FORMAT, TIME = 258, 1, 7, 0, 1_700_000_000_000
STORE = bytes(range(16))
U64_MAX = 2**64 - 1
FOLDER = Path(__file__).parent


def write(name, records):
    lines = [f"{name}\n  key   {key.hex()}\n  value {value.hex()}\n" for name, (key, value) in records.items()]
    (FOLDER / name).write_text("".join(lines))


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def checksummed(key, value):
    return value + struct.pack(">I", crc32c(key + value))


# Postcard: integers but u8 as LEB128, a byte 0 or 1 before what is optional, a variant's number
# before its fields, lengths before strings, lists and maps.


def number(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def numbers(*values):
    return b"".join(map(number, values))


def some(*values):
    return b"\1" + numbers(*values)


NONE = b"\0"
EXPIRED, DISCARDED, NOT_STORED = 2, 4, 7
REJECTED = 0
BLOCK, LETTER_BLOCK = 1, 2
ORIGINS, IN_WAL, WRITES, LIFETIMES = 1, 2, 4, 8


# Blocks and WAL records. Behind the length of a payload stand what the flags name: where a hint
# stood before, the id of its write (0 and 0: none), its lifetime (2^64 - 1: none).


def hint(payload, *fields):
    head = struct.pack(">BHQQI", 0, FORMAT, SHARD, TIME, len(payload))
    return head + b"".join(struct.pack(">Q", it) for it in fields) + payload


def block_of(node, queue, kind, flags, first, bytes_before, hints, body):
    key = struct.pack(">QQBQH", node, queue, kind, first, 0)
    head = struct.pack(">BBBBQQIHIIQ", 1, 46, 0, flags, queue, first, hints, 1, len(body), len(body), bytes_before)
    return key, head + struct.pack(">I", crc32c(key + head + body)) + body


def block(kind, flags, first, bytes_before, *hints):
    return block_of(NODE, QUEUE, kind, flags, first, bytes_before, len(hints), b"".join(hints))


def wal_record(flags, first, *runs):
    """Runs: node, queue, first sequence, bytes before, and the hints."""
    body = b"".join(struct.pack(">QQQQI", *run, len(hints)) + b"".join(hints) for *run, hints in runs)
    return block_of(U64_MAX, 0, BLOCK, IN_WAL | flags, first, 0, sum(len(run[-1]) for run in runs), body)


# Records.


def cursor(node, queue, next_sequence, amounts, ranges=()):
    key = struct.pack(">QQB", node, queue, 0)
    value = struct.pack(">BBHQ8Q", 1, 0, len(ranges), next_sequence, *amounts)
    return key, checksummed(key, value + b"".join(numbers(*it) for it in ranges))


def node_record(queues, state=0, flags=0, parked_since=0):
    key = struct.pack(">Q", NODE)
    value = struct.pack(">BBBQI", 1, state, flags, parked_since, len(queues))
    return key, checksummed(key, value + b"".join(struct.pack(">QQB", NODE, queue, life) for queue, life in queues))


def letter(sequence, fields):
    key = struct.pack(">QQBQ", NODE, QUEUE, 3, sequence)
    return key, checksummed(key, b"\1" + fields)


def dead(number_of_it, payload, reason, error, attempts, first_failed, last_failed):
    error = error.encode()
    cause = numbers(reason, len(error)) + error + numbers(attempts, first_failed, last_failed)
    return numbers(0, number_of_it, SHARD, len(payload)) + cause


def redriven(queue, sequence, payload_bytes):
    return numbers(1, NODE, queue, sequence, payload_bytes)


def in_losses(kind, number_of_it, fields):
    key = struct.pack(">B", kind) if number_of_it is None else struct.pack(">BQ", kind, number_of_it)
    return key, checksummed(key, b"\1" + fields)


def loss(index, shard, place, hints, byte_count, reason, redriven_from=NONE):
    fields = number(NODE) + shard + place + numbers(hints, byte_count, reason, TIME, TIME) + redriven_from
    return in_losses(1, index, fields)


def gone_letters(ranges):
    return in_losses(4, QUEUE, number(len(ranges)) + b"".join(numbers(*it) for it in ranges))


def meta(name, value):
    return name.encode(), checksummed(name.encode(), value)


def mark(key, number_of_it):
    return key, checksummed(key, struct.pack(">BQ", 1, number_of_it))


# A store of nine hints: 1 and 3 were delivered, 4 and 6 rejected, 8 expired, 6 was sent on as 9.

PAYLOADS = [b"cpu,host=%c v=%d %d" % (96 + n, n, n) + b"!" * n for n in range(1, 9)]
PAYLOADS.append(PAYLOADS[5])
size = [None] + [len(it) for it in PAYLOADS]
before = [None] + [sum(size[1:n]) for n in range(1, 11)]
gone = (2, size[1] + size[3], 2, size[4] + size[6], 1, size[8], 0, 0)


def clean():
    value = struct.pack(">8s16sQII", b"HHCLEAN1", STORE, QUEUE + 1, 1, 1)
    value += struct.pack(">QQQQQQQB", NODE, QUEUE, NODE, 10, before[10], 2, size[1], 0)
    # What were dead letters in this life stands between 4 and 6; one of them is one still.
    value += struct.pack(">QQQQQQQ", NODE, QUEUE, NODE, 1, size[4], 4, 6)
    return b"CLEAN", checksummed(b"", value)


store = {f"hh/hints block {n}": block(BLOCK, 0, n, before[n], hint(PAYLOADS[n - 1])) for n in range(2, 9)}
store |= {
    "hh/hints block 9": block(BLOCK, ORIGINS, 9, before[9], hint(PAYLOADS[8], QUEUE, 6)),
    "hh/hints cursor": cursor(
        NODE, QUEUE, 2, gone, [(1, 2, size[3] + size[4]), (1, 1, size[6]), (1, 1, size[8])]
    ),
    "hh/hints letter block 4": block(LETTER_BLOCK, 0, 4, 0, hint(PAYLOADS[3])),
    "hh/hints letter 4": letter(4, dead(1, PAYLOADS[3], REJECTED, "no such field: \u00fc", 3, TIME + 1, TIME + 200)),
    "hh/hints letter 6": letter(6, redriven(QUEUE, 9, size[6])),
    "hh/nodes record": node_record([(QUEUE, 0), (QUEUE, 2)]),
    "hh/losses gone letters": gone_letters([(2, 2)]),
    "hh/losses entry": loss(0, some(SHARD), some(QUEUE, 8, 8), 1, size[8], EXPIRED),
    "hh/meta schema": meta("schema", struct.pack(">I", 1)),
    "hh/meta next queue": meta("next_queue", struct.pack(">Q", 2)),
    "file CLEAN": clean(),
}
write("store.txt", store)

more = {
    "record removed, paused and parked": node_record([(1, 0), (3, 1), (3, 2)], 1, 1, TIME),
    "loss of a redriven one, shard unknown": loss(
        300, NONE, some(QUEUE, 9, 128), 120, 70_000, DISCARDED, numbers(1, QUEUE, 6)
    ),
    "loss folded": in_losses(0, None, numbers(3, 2, EXPIRED, 5, 500, DISCARDED, 1, 1 << 40) + some(7, 2)),
    "loss range": in_losses(2, QUEUE, numbers(NODE, QUEUE, 3, 1000, 6, 600, 2)),
    "loss of copies not stored": loss(301, some(SHARD), NONE, 3, 300, NOT_STORED),
    "loss of copies of a node": in_losses(3, NODE, numbers(NODE, 3, 300, 299)),
    "loss of copies of nodes forgotten": in_losses(3, None, number(298)),
}
write("more.txt", more)


# Eight behind the first two blocks, which there is room for before the chunks are four, and eight
# behind the third; the last of all.


def padding_key(sequence, chunk):
    return struct.pack(">QQBQH", NODE, QUEUE, 1, sequence, chunk), b""


padding = {"hh/hints last padding key": padding_key(U64_MAX, 65535)}
for sequence in (2, 4):
    padding |= {f"hh/hints padding key {sequence} {at}": padding_key(sequence, 65527 + at) for at in range(8)}
write("padding.txt", padding)

write(
    "wal.txt",
    {
        "hh/hints WAL record": wal_record(0, 7, (NODE, QUEUE, 1, 0, [hint(b"v=1")]), (259, 2, 5, 70, [hint(b"v=2")])),
        "hh/hints WAL cursor": cursor(U64_MAX, 0, 7, (6, 0, 0, 0, 0, 0, 0, 0)),
    },
)

ONE, OTHER, NO_WRITE = (0xB007, 1), (0xB007, 2**40), (0, 0)
FIRST = b"cpu,host=a v=1 1"
write(
    "writes.txt",
    {
        "hh/hints block 1": block(BLOCK, WRITES, 1, 0, hint(FIRST, *ONE)),
        "hh/hints letter block 1": block(LETTER_BLOCK, WRITES, 1, 0, hint(FIRST, *ONE)),
        "hh/hints block 2": block(BLOCK, ORIGINS | WRITES, 2, len(FIRST), hint(FIRST, QUEUE, 1, *ONE)),
        "hh/hints block 3": block(BLOCK, WRITES, 3, 2 * len(FIRST), hint(b"v=3", *OTHER)),
        "hh/hints cursor": cursor(NODE, QUEUE, 2, (0, 0, 1, len(FIRST), 0, 0, 1, 3), [(1, 1, 3)]),
        "more two hints, one of a write": block(BLOCK, WRITES, 4, 90, hint(b"v=4", *NO_WRITE), hint(b"v=5", *OTHER)),
        # A run of two, so that it stays below what is compressed.
        "more WAL record": wal_record(
            WRITES, 7, (NODE, QUEUE, 1, 0, [hint(b"v=1", *ONE), hint(b"v=2", *NO_WRITE)])
        ),
    },
)

write(
    "lifetimes.txt",
    {
        "hh/hints block 1": block(BLOCK, LIFETIMES, 1, 0, hint(FIRST, 3_600_000)),
        "more two hints, one with a lifetime": block(
            BLOCK, LIFETIMES, 4, 90, hint(b"v=4", U64_MAX), hint(b"v=5", 0)
        ),
        "more all that a hint can have": block(
            BLOCK, ORIGINS | WRITES | LIFETIMES, 4, 90, hint(b"v=4", QUEUE, 1, *ONE, 5)
        ),
        "more WAL record": wal_record(
            LIFETIMES, 7, (NODE, QUEUE, 1, 0, [hint(b"v=1", 60_000), hint(b"v=2", U64_MAX)])
        ),
    },
)

clocks = struct.pack(">QQqQQq", 0, 9, 1_600_000_000_000, 1_699_999_997_500, U64_MAX, -2500)
write("clock.txt", {"hh/meta clock": meta("clock", clocks)})

write(
    "members.txt",
    {
        "hh/meta members": meta("members", struct.pack(">BQQ", 1, 3, NODE)),
        "hh/nodes node": node_record([(QUEUE, 0)], flags=3),
    },
)

applied = {
    "hh/applied mark": mark(STORE + struct.pack(">QQ", 9, SHARD), 258),
    "hh/applied floor": mark(STORE, 9),
}
write("applied.txt", applied)

# The first byte of a seed of `losses` and of `meta` says which record it is.
seeds = {
    "block/plain": store["hh/hints block 2"],
    "block/with_origins": store["hh/hints block 9"],
    "block/compressed": (None, bytes.fromhex((FOLDER / "zstd_block.hex").read_text())),
    "clean/golden": store["file CLEAN"],
    "cursor/with_ranges": store["hh/hints cursor"],
    "letter/dead": store["hh/hints letter 4"],
    "letter/redriven": store["hh/hints letter 6"],
    "losses/folded": (b"\0", more["loss folded"][1]),
    "losses/entry": (b"\1", store["hh/losses entry"][1]),
    "losses/redriven": (b"\1", more["loss of a redriven one, shard unknown"][1]),
    "losses/range": (b"\2", more["loss range"][1]),
    "mark/mark": applied["hh/applied mark"],
    "meta/schema": (b"\0", store["hh/meta schema"][1]),
    "meta/next_queue": (b"\2", store["hh/meta next queue"][1]),
    "meta/node_with_dead_letters": (b"\3", more["record removed, paused and parked"][1]),
}
for name, (which, value) in seeds.items():
    prefix = which if name.startswith(("losses/", "meta/")) else b""
    path = FOLDER / "../../fuzz/seeds" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(prefix + value)
