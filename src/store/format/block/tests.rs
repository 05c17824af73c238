use crate::{
    store::format::{
        block::*,
        encoder::{EncodedBlock, Encoder},
    },
    types::NodeId,
};

const QUEUE: QueueRef = QueueRef {
    node: NodeId(2),
    queue: QueueId(3),
};

fn hint(payload: impl Into<Bytes>) -> Hint {
    Hint {
        shard: ShardId(7),
        format: 1,
        enqueued_unix_ms: 1_700_000_000_000,
        payload: payload.into(),
        origin: None,
        write: None,
        lifetime_ms: None,
    }
}

/// Puts the chunks of a block together as a reader does.
fn read_back(block: EncodedBlock) -> Result<Vec<Hint>, DecodeError> {
    let mut chunks: Vec<_> = block.into_writes().collect();
    chunks.reverse();
    let header = Header::parse(QUEUE, Sequence(5), &chunks[0].1)?;
    assert_eq!(usize::from(header.chunks), chunks.len());
    let mut body = body_of_chunk0(&chunks[0].1).to_vec();
    chunks[1..]
        .iter()
        .for_each(|chunk| body.extend_from_slice(&chunk.1));
    decode(QUEUE, &header, &body)
}

fn incompressible(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..bytes).map(|_| next()).collect()
}

#[test]
fn hints_come_back_as_they_went_in_small_large_and_incompressible() {
    let mut encoder = Encoder::new();
    for payloads in [
        vec![vec![b'x']],
        vec![vec![b'a'; 5000], vec![b'b'; 300_000], vec![0]],
        vec![incompressible(1_000_000)],
    ] {
        let hints: Vec<_> = payloads.into_iter().map(hint).collect();
        let block = encoder.encode(QUEUE, Sequence(5), 10, &hints);
        assert_eq!(block.header.last().0, 4 + hints.len() as u64);
        let payload_bytes: usize = hints.iter().map(|hint| hint.payload.len()).sum();
        assert_eq!(block.header.bytes_through(), 10 + payload_bytes as u64);
        let back = read_back(block).unwrap();
        assert_eq!(back, hints);
    }
}

#[test]
fn hints_keep_where_they_came_from_and_those_beside_them_are_counted_the_same() {
    let origin = Some((QueueId(2), Sequence(77)));
    let hints = [
        hint(vec![b'a'; 500]),
        Hint {
            origin,
            ..hint(vec![b'b'; 300])
        },
    ];
    let block = Encoder::new().encode(QUEUE, Sequence(5), 10, &hints);
    assert_eq!(block.header.bytes_through(), 810);
    let back = read_back(block).unwrap();
    assert_eq!((back[0].origin, back[1].origin), (None, origin));
    assert_eq!(back[1].payload, hints[1].payload);
}

#[test]
fn hints_keep_the_ids_of_their_writes_and_those_without_any_stay_as_they_were() {
    let write = Some(WriteId {
        boot: u64::MAX,
        counter: 1,
    });
    let origin = Some((QueueId(2), Sequence(77)));
    let plain = [hint(vec![b'a'; 500]), hint(vec![b'b'; 300])];
    let bytes = |hints: &[Hint]| {
        let block = Encoder::new().encode(QUEUE, Sequence(5), 10, hints);
        assert_eq!(block.header.bytes_through(), 810);
        let raw_bytes = block.header.raw_bytes;
        assert_eq!(read_back(block).unwrap(), hints);
        raw_bytes
    };
    let [first, second] = plain.clone();
    let of_write = Hint { write, ..second };
    let both = Hint {
        origin,
        ..of_write.clone()
    };
    assert_eq!(bytes(&plain), 2 * 23 + 800);
    assert_eq!(bytes(&[first.clone(), of_write.clone()]), 2 * 39 + 800);
    assert_eq!(bytes(&[first.clone(), both.clone()]), 2 * 55 + 800);
    let lifetime_ms = Some(0);
    let all = Hint {
        lifetime_ms,
        ..both.clone()
    };
    assert_eq!(bytes(&[first.clone(), all.clone()]), 2 * 63 + 800);
    let of_time = Hint {
        lifetime_ms,
        ..plain[1].clone()
    };
    assert_eq!(bytes(&[first.clone(), of_time]), 2 * 31 + 800);
    assert_eq!(all.raw_bytes(), 63 + 300, "at most");
    // A boot of 0 is none.
    let none = Hint {
        write: Some(WriteId {
            boot: 0,
            counter: 9,
        }),
        ..plain[0].clone()
    };
    let block = Encoder::new().encode(QUEUE, Sequence(5), 10, [&none, &of_write]);
    let back = read_back(block).unwrap();
    assert_eq!((back[0].write, back[1].write), (None, write));
}

/// What it is the largest of must fit in a block.
#[test]
fn the_largest_hint_fits_with_all_that_a_hint_can_have() {
    let most = MAX_ENTRY_BYTES_CEILING as u32;
    let flags = WITH_ORIGINS | WITH_WRITES | WITH_LIFETIMES;
    let raw_bytes = most + hint_overhead(flags) as u32;
    let largest = |raw_bytes| Header {
        codec: CODEC_ZSTD,
        flags,
        raw_bytes,
        chunks: 1,
        stored_bytes: 20,
        ..Header::in_memory(QUEUE, Sequence(5), 1, 0)
    };
    assert_eq!(largest(raw_bytes).check(QUEUE, Sequence(5)), Ok(()));
    assert_eq!(largest(raw_bytes).bytes_through(), u64::from(most));
    assert!(largest(raw_bytes + 1).check(QUEUE, Sequence(5)).is_err());
}

#[test]
fn no_chunk_is_over_16_kib_and_chunk_0_is_written_last() {
    let block = Encoder::new().encode(QUEUE, Sequence(5), 0, &[hint(incompressible(200_000))]);
    let writes: Vec<_> = block.into_writes().collect();
    assert_eq!(writes.len(), 13);
    assert!(writes.iter().all(|(_, value)| value.len() <= 16 * 1024));
    assert_eq!(writes.last().unwrap().0, QUEUE.chunk_key(Sequence(5), 0));
}

#[test]
fn any_flipped_bit_in_a_block_is_noticed() {
    flip_each(hint(&b"cpu value=1"[..]));
    // The flag that says so, too: without it an origin would be taken for payload.
    flip_each(Hint {
        origin: Some((QueueId(1), Sequence(6))),
        ..hint(&b"cpu value=1"[..])
    });
    flip_each(Hint {
        write: Some(WriteId {
            boot: 1,
            counter: 6,
        }),
        ..hint(&b"cpu value=1"[..])
    });
    flip_each(Hint {
        lifetime_ms: Some(6),
        ..hint(&b"cpu value=1"[..])
    });
}

#[test]
fn a_block_of_a_dead_letter_is_none_of_its_queue_and_the_other_way_round() {
    let place = crate::store::format::keys::Place {
        queue: QUEUE,
        sequence: Sequence(5),
    };
    let new = hint(&b"cpu value=1"[..]);
    for letter in [true, false] {
        let block = match letter {
            true => Encoder::new().encode_letter(place, &new),
            false => Encoder::new().encode(QUEUE, Sequence(5), 0, [&new]),
        };
        let (_, chunk0) = block.into_writes().next().unwrap();
        let header = Header::parse(QUEUE, Sequence(5), &chunk0).unwrap();
        let body = body_of_chunk0(&chunk0);
        let reads = |keyspace| decode_in(keyspace, QUEUE, &header, body).is_ok();
        assert_eq!(
            [reads(Keyspace::Letters), reads(Keyspace::Queue)],
            [letter, !letter]
        );
    }
}

fn flip_each(hint: Hint) {
    let block = Encoder::new().encode(QUEUE, Sequence(5), 0, &[hint]);
    let (_, chunk0) = block.into_writes().next().unwrap();
    for bit in 0..chunk0.len() * 8 {
        let mut flipped = chunk0.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let result = Header::parse(QUEUE, Sequence(5), &flipped)
            .and_then(|header| decode(QUEUE, &header, body_of_chunk0(&flipped)));
        assert!(result.is_err(), "bit {bit}");
    }
}

#[test]
fn length_bombs_are_refused_before_anything_is_allocated() {
    let good = Header {
        codec: CODEC_ZSTD,
        flags: 0,
        queue: QUEUE.queue,
        first: Sequence(5),
        hints: 1,
        chunks: 1,
        stored_bytes: 20,
        raw_bytes: 100,
        bytes_before: 0,
        crc: 0,
    };
    assert_eq!(good.check(QUEUE, Sequence(5)), Ok(()));
    let bombs = [
        Header {
            raw_bytes: u32::MAX,
            ..good
        },
        Header {
            hints: u32::MAX,
            ..good
        },
        Header { hints: 0, ..good },
        Header {
            chunks: u16::MAX,
            ..good
        },
        Header {
            stored_bytes: 101,
            ..good
        },
        Header {
            first: Sequence(u64::MAX),
            ..good
        },
    ];
    for bomb in bombs {
        assert!(bomb.check(QUEUE, bomb.first).is_err(), "{bomb:?}");
    }
    // A body that decompresses to more than the header allows stops at what the header allows.
    let mut big = Encoder::new();
    let block = big.encode(QUEUE, Sequence(5), 0, &[hint(vec![0; 1_000_000])]);
    let (_, chunk0) = block.into_writes().next().unwrap();
    assert!(decompress(body_of_chunk0(&chunk0), 1000).is_err());
    // A hint that claims more than its body holds.
    let mut raw = Vec::new();
    raw.put_u8(0);
    raw.put_u16(1);
    raw.put_u64(1);
    raw.put_u64(1);
    raw.put_u32(u32::MAX);
    assert!(matches!(
        split_hints(raw.into(), &good),
        Err(DecodeError::Short { .. })
    ));
}
