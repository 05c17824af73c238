#!/usr/bin/env python3
"""Writes schema1.txt: what schema 1 puts on disk for two hints of node 258, one of them acknowledged; schema2.txt: what schema 2
does for nine, of which two were delivered, one was lost, one is a dead letter and one was a dead letter and is the ninth now;
schema2_more.txt: records that take more to come to; schema2_padding.txt: the empty keys around three blocks of 2, 1 and 2 chunks with a
hint each; schema3_mixed.txt: a group of a hint for node 258 and one for node 259, a cursor behind such groups, and the schema;
schema3_writes.txt: blocks and a group of hints with the ids of their writes, and a cursor with a hint that was withdrawn;
schema3_lifetimes.txt: the same of hints with lifetimes; schema3_clock.txt: two clocks that were wrong;
schema3_members.txt: who is in the cluster, and the record of a node that is paused and leaves; and
applied.txt: what a receiver remembers of hint 258.

Written from the layouts in src/store/{keys,block,wal,cursor,node_record,clean,meta,applied,dead_letter,gone_letters,losses,departure}.rs, without using
their code.
"""
import struct
from pathlib import Path


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def checksummed(key, value):
    return value + struct.pack(">I", crc32c(key + value))


NODE, QUEUE, SHARD, FORMAT, TIME = 258, 1, 7, 0, 1_700_000_000_000
PAYLOADS = [b"cpu,host=a v=1 1", b"mem v=2 2"]


def hint(payload):
    return struct.pack(">BHQQI", 0, FORMAT, SHARD, TIME, len(payload)) + payload


def block(first, bytes_before, payloads):
    key = struct.pack(">QQBQH", NODE, QUEUE, 1, first, 0)
    body = b"".join(map(hint, payloads))
    head = struct.pack(">BBBBQQIHIIQ", 1, 46, 0, 0, QUEUE, first, len(payloads), 1, len(body), len(body), bytes_before)
    return key, head + struct.pack(">I", crc32c(key + head + body)) + body


def cursor(next_sequence, delivered):
    key = struct.pack(">QQB", NODE, QUEUE, 0)
    return key, checksummed(key, struct.pack(">BBHQ6Q", 1, 0, 0, next_sequence, *delivered, 0, 0, 0, 0))


def node_record():
    key = struct.pack(">Q", NODE)
    return key, checksummed(key, struct.pack(">BBIQQB", 1, 0, 1, NODE, QUEUE, 0))


def meta(name, value):
    return name.encode(), checksummed(name.encode(), value)


def clean(next_sequence, all_bytes, at, at_bytes):
    value = struct.pack(">8sQIQQQQQQB", b"HHCLEAN1", QUEUE + 1, 1, NODE, QUEUE, next_sequence, all_bytes, at, at_bytes, 0)
    return b"CLEAN", checksummed(b"", value)


first, second = map(len, PAYLOADS)
records = {
    "hh/hints first block": block(1, 0, PAYLOADS[:1]),
    "hh/hints second block": block(2, first, PAYLOADS[1:]),
    "hh/hints cursor": cursor(2, (1, first)),
    "hh/nodes record": node_record(),
    "hh/meta schema": meta("schema", struct.pack(">I", 1)),
    "hh/meta next queue": meta("next_queue", struct.pack(">Q", 2)),
    "file CLEAN": clean(3, first + second, 2, first),
}


def applied(key, number):
    return key, checksummed(key, struct.pack(">BQ", 1, number))


STORE = bytes(range(16))
applied_records = {
    "hh/applied mark": applied(STORE + struct.pack(">QQ", 9, SHARD), 258),
    "hh/applied floor": applied(STORE, 9),
}


def write(name, records):
    lines = [f"{name}\n  key   {key.hex()}\n  value {value.hex()}\n" for name, (key, value) in records.items()]
    Path(__file__).with_name(name).write_text("".join(lines))


# Schema 2. Postcard: integers but u8 as LEB128, a byte 0 or 1 before what is optional, a variant's number before its fields, lengths
# before strings and maps.


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
EXPIRED, DISCARDED = 2, 4
REJECTED = 0


def hint_with_origin(payload, origin):
    return struct.pack(">BHQQIQQ", 0, FORMAT, SHARD, TIME, len(payload), *origin) + payload


def block2(kind, sequence, bytes_before, payload, origin=None):
    key = struct.pack(">QQBQH", NODE, QUEUE, kind, sequence, 0)
    body = hint_with_origin(payload, origin) if origin else hint(payload)
    flags = 1 if origin else 0
    head = struct.pack(">BBBBQQIHIIQ", 1, 46, 0, flags, QUEUE, sequence, 1, 1, len(body), len(body), bytes_before)
    return key, head + struct.pack(">I", crc32c(key + head + body)) + body


def cursor3(next_sequence, amounts, ranges):
    key = struct.pack(">QQB", NODE, QUEUE, 0)
    value = struct.pack(">BBHQ8Q", 3, 0, len(ranges), next_sequence, *amounts)
    return key, checksummed(key, value + b"".join(numbers(*it) for it in ranges))


def node_record2(queues, state=0, flags=0, parked_since=0):
    key = struct.pack(">Q", NODE)
    value = struct.pack(">BBBQI", 2, state, flags, parked_since, len(queues))
    return key, checksummed(key, value + b"".join(struct.pack(">QQB", NODE, queue, life) for queue, life in queues))


def letter(sequence, version, fields):
    key = struct.pack(">QQBQ", NODE, QUEUE, 3, sequence)
    return key, checksummed(key, bytes([version]) + fields)


def dead(number_of_it, payload, reason, error, attempts, first_failed, last_failed):
    error = error.encode()
    burial = numbers(reason, len(error)) + error + numbers(attempts, first_failed, last_failed)
    return numbers(number_of_it, SHARD, len(payload)) + burial


def gone_letters(ranges):
    key = struct.pack(">BQ", 4, QUEUE)
    return key, checksummed(key, b"\1" + number(len(ranges)) + b"".join(numbers(*it) for it in ranges))


def loss(index, shard, first, last, hints, byte_count, reason, origin=NONE):
    key = struct.pack(">BQ", 1, index)
    fields = number(NODE) + shard + numbers(QUEUE, first, last, hints, byte_count, reason, TIME, TIME) + origin
    return key, checksummed(key, b"\1" + fields)


PAYLOADS2 = [b"cpu,host=%c v=%d %d" % (96 + n, n, n) + b"!" * n for n in range(1, 9)]
PAYLOADS2.append(PAYLOADS2[5])
size = [None] + [len(it) for it in PAYLOADS2]
before = [None] + [sum(size[1:n]) for n in range(1, 11)]
# Hints 1 and 3 were delivered, 4 and 6 rejected, 8 expired, 6 was sent on as 9.
gone = (2, size[1] + size[3], 2, size[4] + size[6], 1, size[8], 0, 0)
ranges = [(1, 2, size[3] + size[4]), (1, 1, size[6]), (1, 1, size[8])]


def clean2():
    value = struct.pack(">8sQII", b"HHCLEAN2", QUEUE + 1, 1, 1)
    value += struct.pack(">QQQQQQQB", NODE, QUEUE, NODE, 10, before[10], 2, size[1], 0)
    # What were dead letters in this life stands between 4 and 6; one of them is one still.
    value += struct.pack(">QQQQQQQ", NODE, QUEUE, NODE, 1, size[4], 4, 6)
    return b"CLEAN", checksummed(b"", value)


records2 = {f"hh/hints block {n}": block2(1, n, before[n], PAYLOADS2[n - 1]) for n in range(2, 9)}
records2 |= {
    "hh/hints block 9": block2(1, 9, before[9], PAYLOADS2[8], (QUEUE, 6)),
    "hh/hints cursor": cursor3(2, gone, ranges),
    "hh/hints letter block 4": block2(2, 4, 0, PAYLOADS2[3]),
    "hh/hints letter 4": letter(4, 2, dead(1, PAYLOADS2[3], REJECTED, "no such field: \u00fc", 3, TIME + 1, TIME + 200)),
    "hh/hints letter 6": letter(6, 1, numbers(1, NODE, QUEUE, 9, size[6])),
    "hh/nodes record": node_record2([(QUEUE, 0), (QUEUE, 2)]),
    "hh/losses gone letters": gone_letters([(2, 2)]),
    "hh/losses entry": loss(0, some(SHARD), 8, 8, 1, size[8], EXPIRED),
    "hh/meta schema": meta("schema", struct.pack(">I", 2)),
    "hh/meta next queue": meta("next_queue", struct.pack(">Q", 2)),
    "file CLEAN": clean2(),
}

folded_key = b"\0"
folded_fields = numbers(3, 2, EXPIRED, 5, 500, DISCARDED, 1, 1 << 40) + some(7, 2)
range_key = struct.pack(">BQ", 2, QUEUE)
range_fields = numbers(NODE, QUEUE, 3, 1000, 6, 600, 2)
copies_key = struct.pack(">BQ", 1, 301)
copies_fields = number(NODE) + some(SHARD) + numbers(3, 300, TIME, TIME)
node_key = struct.pack(">BQ", 3, NODE)
more = {
    "record removed, paused and parked": node_record2([(1, 0), (3, 1), (3, 2)], 1, 1, TIME),
    "loss of a redriven one, shard unknown": loss(300, NONE, 9, 128, 120, 70_000, DISCARDED, numbers(1, QUEUE, 6)),
    "loss folded": (folded_key, checksummed(folded_key, b"\1" + folded_fields)),
    "loss range": (range_key, checksummed(range_key, b"\1" + range_fields)),
    "loss of copies not stored": (copies_key, checksummed(copies_key, b"\2" + copies_fields)),
    "loss of copies of a node": (node_key, checksummed(node_key, b"\1" + numbers(NODE, 3, 300, 299))),
    "loss of copies of nodes forgotten": (b"\3", checksummed(b"\3", b"\1" + number(298))),
}

write("schema1.txt", records)
write("schema2.txt", records2)
write("schema2_more.txt", more)
write("applied.txt", applied_records)


def padding_key(sequence, chunk):
    return struct.pack(">QQBQH", NODE, QUEUE, 1, sequence, chunk), b""


# Eight behind the first two blocks, which there is room for before the chunks are four, and eight behind the third; the last of all.
padding = {"hh/hints last padding key": padding_key(2**64 - 1, 65535)}
for sequence in (2, 4):
    padding |= {f"hh/hints padding key {sequence} {at}": padding_key(sequence, 65527 + at) for at in range(8)}
write("schema2_padding.txt", padding)


def wal_record(first, runs):
    """Runs of one hint: node, queue, sequence, bytes before, payload."""
    key = struct.pack(">QQBQH", 2**64 - 1, 0, 1, first, 0)
    body = b"".join(struct.pack(">QQQQI", *run, 1) + hint(payload) for *run, payload in runs)
    head = struct.pack(">BBBBQQIHIIQ", 1, 46, 0, 2, 0, first, len(runs), 1, len(body), len(body), 0)
    return key, head + struct.pack(">I", crc32c(key + head + body)) + body


mixed_cursor_key = struct.pack(">QQB", 2**64 - 1, 0, 0)
wal = {
    "hh/meta schema": meta("schema", struct.pack(">I", 3)),
    "hh/hints WAL record": wal_record(7, [(NODE, QUEUE, 1, 0, b"v=1"), (259, 2, 5, 70, b"v=2")]),
    "hh/hints WAL cursor": (
        mixed_cursor_key,
        checksummed(mixed_cursor_key, struct.pack(">BBHQ8Q", 3, 0, 0, 7, 6, 0, 0, 0, 0, 0, 0, 0)),
    ),
}
write("schema3_mixed.txt", wal)


# Flag 4: behind the origin, where there is one, stands the id of the write, boot and counter; 0 and 0 where there is none.
WRITES = [(0xB007, 1), (0xB007, 2**40)]


def hint_of_write(payload, write, origin=()):
    head = struct.pack(">BHQQI", 0, FORMAT, SHARD, TIME, len(payload))
    return head + b"".join(struct.pack(">Q", it) for it in (*origin, *write)) + payload


def block_of(node, queue, kind, flags, sequence, bytes_before, hints, body):
    key = struct.pack(">QQBQH", node, queue, kind, sequence, 0)
    head = struct.pack(">BBBBQQIHIIQ", 1, 46, 0, flags, queue, sequence, hints, 1, len(body), len(body), bytes_before)
    return key, head + struct.pack(">I", crc32c(key + head + body)) + body


FIRST = PAYLOADS[0]
# A run of two, so that it stays below what is compressed.
run = struct.pack(">QQQQI", NODE, QUEUE, 1, 0, 2) + hint_of_write(b"v=1", WRITES[0]) + hint_of_write(b"v=2", (0, 0))
writes = {
    "hh/hints block 1": block_of(NODE, QUEUE, 1, 4, 1, 0, 1, hint_of_write(FIRST, WRITES[0])),
    "hh/hints letter block 1": block_of(NODE, QUEUE, 2, 4, 1, 0, 1, hint_of_write(FIRST, WRITES[0])),
    "hh/hints block 2": block_of(NODE, QUEUE, 1, 5, 2, len(FIRST), 1, hint_of_write(FIRST, WRITES[0], (QUEUE, 1))),
    "hh/hints block 3": block_of(NODE, QUEUE, 1, 4, 3, 2 * len(FIRST), 1, hint_of_write(b"v=3", WRITES[1])),
    "hh/hints cursor": cursor3(2, (0, 0, 1, len(FIRST), 0, 0, 1, 3), [(1, 1, 3)]),
    "more two hints, one of a write": block_of(
        NODE, QUEUE, 1, 4, 4, 90, 2, hint_of_write(b"v=4", (0, 0)) + hint_of_write(b"v=5", WRITES[1])
    ),
    "more WAL record": block_of(2**64 - 1, 0, 1, 6, 7, 0, 2, run),
}
write("schema3_writes.txt", writes)

NONE = 2**64 - 1


def hint_with(payload, lifetime, write=b""):
    """A hint of a block with lifetimes, and with what else stands before one."""
    return struct.pack(">BHQQI", 0, FORMAT, SHARD, TIME, len(payload)) + write + struct.pack(">Q", lifetime) + payload


run = struct.pack(">QQQQI", NODE, QUEUE, 1, 0, 2) + hint_with(b"v=1", 60_000) + hint_with(b"v=2", NONE)
all_fields = struct.pack(">QQQQ", QUEUE, 1, *WRITES[0])
write(
    "schema3_lifetimes.txt",
    {
        "hh/hints block 1": block_of(NODE, QUEUE, 1, 8, 1, 0, 1, hint_with(FIRST, 3_600_000)),
        "more two hints, one with a lifetime": block_of(
            NODE, QUEUE, 1, 8, 4, 90, 2, hint_with(b"v=4", NONE) + hint_with(b"v=5", 0)
        ),
        "more all that a hint can have": block_of(NODE, QUEUE, 1, 13, 4, 90, 1, hint_with(b"v=4", 5, all_fields)),
        "more WAL record": block_of(2**64 - 1, 0, 1, 10, 7, 0, 2, run),
    },
)
clocks = struct.pack(">QQqQQq", 0, 9, 1_600_000_000_000, 1_699_999_997_500, NONE, -2500)
write("schema3_clock.txt", {"hh/meta clock": meta("clock", clocks)})
node_key = struct.pack(">Q", NODE)
leaves = struct.pack(">BBBQIQQB", 2, 0, 3, 0, 1, NODE, QUEUE, 0)
write(
    "schema3_members.txt",
    {
        "hh/meta members": meta("members", struct.pack(">BQQ", 1, 3, NODE)),
        "hh/nodes node": (node_key, checksummed(node_key, leaves)),
    },
)
