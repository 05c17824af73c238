#!/usr/bin/env python3
"""Writes bytes.txt: what schema 1 puts on disk for two hints of node 258, one of them acknowledged; and applied.txt: what a
receiver remembers of hint 258.

Written from the layouts in src/store/{keys,block,cursor,node_record,clean,meta,applied}.rs, without using their code.
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


def sealed(key, value):
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
    return key, sealed(key, struct.pack(">BBHQ6Q", 1, 0, 0, next_sequence, *delivered, 0, 0, 0, 0))


def node_record():
    key = struct.pack(">Q", NODE)
    return key, sealed(key, struct.pack(">BBIQQB", 1, 0, 1, NODE, QUEUE, 0))


def meta(name, value):
    return name.encode(), sealed(name.encode(), value)


def clean(next_sequence, all_bytes, at, at_bytes):
    value = struct.pack(">8sQIQQQQQQB", b"HHCLEAN1", QUEUE + 1, 1, NODE, QUEUE, next_sequence, all_bytes, at, at_bytes, 0)
    return b"CLEAN", sealed(b"", value)


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
    return key, sealed(key, struct.pack(">BQ", 1, number))


STORE = bytes(range(16))
applied_records = {
    "hh/applied mark": applied(STORE + struct.pack(">QQ", 9, SHARD), 258),
    "hh/applied floor": applied(STORE, 9),
}


def write(name, records):
    lines = [f"{name}\n  key   {key.hex()}\n  value {value.hex()}\n" for name, (key, value) in records.items()]
    Path(__file__).with_name(name).write_text("".join(lines))


write("bytes.txt", records)
write("applied.txt", applied_records)
