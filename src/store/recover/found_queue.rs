//! A queue as it is found: its cursor, and where its blocks end.

use crate::{
    stats::Damage,
    store::{
        engine::{
            blocks::{self, ReadError},
            generation::Engine,
            table,
        },
        format::{
            block::Header,
            cursor::{Cursor, Leave},
            keys::QueueRef,
            shutdown_summary::CleanQueue,
        },
        state::{queue::Queue, registry::Registry},
    },
    types::Sequence,
};

/// Where a queue's blocks end.
struct FoundTail {
    last: Sequence,
    bytes: u64,
    intact: bool,
}

/// Loads a queue, and notes where it is not what `CLEAN` says.
pub fn load_queue(
    engine: &Engine,
    at: QueueRef,
    clean: Option<&CleanQueue>,
    registry: &mut Registry,
) -> Result<Queue, table::Error> {
    let mut note = |what: String| {
        registry.note_damage(Damage {
            node: at.node,
            queue: at.queue,
            what,
            lost: None,
        });
    };
    let mut closed = false;
    let tail = load_tail(engine, at)?;
    let mut cursor = match load_cursor(engine, at, clean)? {
        Ok(cursor) => cursor,
        Err((rebuilt, what)) => {
            note(what);
            closed = true;
            rebuilt
        }
    };
    if let Some(clean) = clean.filter(|clean| clean.cursor > cursor.next) {
        note(format!(
            "the cursor says {}, CLEAN says {}; going on with the latter",
            cursor.next, clean.cursor
        ));
        let through = Sequence(clean.cursor.0.saturating_sub(1));
        cursor.advance(through, clean.cursor_bytes, Leave::Delivered);
        closed = true;
    }
    // All blocks may be trimmed: then the cursor alone knows how far the queue got.
    let drained = Sequence(cursor.next.0.saturating_sub(1));
    let highest = cursor.above.iter().last().map_or(drained, |it| it.last);
    let (mut watermark, mut bytes) = (highest, cursor.gone().bytes);
    if let Some(tail) = tail {
        if tail.last >= watermark {
            (watermark, bytes) = (tail.last, tail.bytes.max(bytes));
        }
        closed |= !tail.intact;
    }
    if let Some(clean) = clean.filter(|clean| clean.next.0 > watermark.0.saturating_add(1)) {
        note(format!(
            "its blocks end at {}, CLEAN says {}; replay will report what is missing",
            watermark,
            clean.next.0 - 1
        ));
        (watermark, bytes) = (Sequence(clean.next.0 - 1), clean.bytes);
        closed = true;
    }
    Ok(Queue {
        cursor,
        closed,
        ..Queue::new(at, watermark, bytes)
    })
}

/// The outer error is the engine's; the inner one is a cursor that had to be rebuilt, and why.
fn load_cursor(
    engine: &Engine,
    at: QueueRef,
    clean: Option<&CleanQueue>,
) -> Result<Result<Cursor, (Cursor, String)>, table::Error> {
    let stored = engine.hints.get(at.cursor_key())?;
    let why = match stored.as_deref().map(|value| Cursor::decode(at, value)) {
        Some(Ok(cursor)) => return Ok(Ok(cursor)),
        Some(Err(error)) => Some(format!("the cursor: {error}")),
        None => None,
    };
    let first = blocks::starts(&engine.hints, at, Sequence(1))
        .next()
        .transpose()?;
    let rebuilt = match (clean, first) {
        (Some(clean), _) => Cursor::rebuilt(clean.cursor, clean.cursor_bytes),
        (None, Some(first)) => {
            let bytes_before = match blocks::read(&engine.hints, at, first) {
                Ok(Some(block)) => block.header.bytes_before,
                Err(ReadError::Engine(error)) => return Err(error),
                _ => 0,
            };
            Cursor::rebuilt(first, bytes_before)
        }
        (None, None) => Cursor::start(),
    };
    match why {
        Some(what) => Ok(Err((rebuilt, what))),
        // Nothing was acknowledged yet: a queue has no cursor before its first ack.
        None if rebuilt.next == Sequence(1) => Ok(Ok(rebuilt)),
        None => Ok(Err((rebuilt, "the cursor is missing".to_owned()))),
    }
}

/// Finds the last block. One that does not read is counted by what its header claims: what is
/// claimed in excess is reported as lost, what is claimed too little is not there to be read.
fn load_tail(engine: &Engine, at: QueueRef) -> Result<Option<FoundTail>, table::Error> {
    let Some(first) = blocks::last_start(&engine.hints, at, Sequence(u64::MAX))? else {
        return Ok(None);
    };
    match blocks::read(&engine.hints, at, first) {
        Ok(Some(block)) => Ok(Some(FoundTail {
            last: block.header.last(),
            bytes: block.header.bytes_through(),
            intact: true,
        })),
        Err(ReadError::Engine(error)) => Err(error),
        Ok(None) | Err(ReadError::Damaged(_)) => {
            let claimed = engine
                .hints
                .get(at.chunk_key(first, 0))?
                .and_then(|chunk0| Header::parse(at, first, &chunk0).ok());
            Ok(Some(FoundTail {
                last: claimed.map_or(first, |header| header.last()),
                bytes: claimed.map_or(0, |header| header.bytes_through()),
                intact: false,
            }))
        }
    }
}
