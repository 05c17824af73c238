//! What a round reads to fill its window: passes over the queues, and next hints of shards that
//! were set aside.

use tokio::time::Instant;

use super::{
    end::Interrupted,
    round::Round,
    window::{Standing, Window},
};
use crate::{
    payload::Payload,
    shard_writer::ShardWriter,
    store::{Peek, PeekLimits, Reader},
    types::Amount,
};

impl<P: Payload, W: ShardWriter<P>> Round<'_, P, W> {
    /// Reads on while sends are under way.
    pub(super) fn start_read(&mut self) {
        if self.damaged.is_some() || self.is_storm() || self.reading.is_some() {
            return;
        }
        // A pass ends with what was there when it began, so that another may begin while hints
        // come.
        let is_over = self.is_at_end || self.pass_left == 0;
        if is_over && self.window.aside.wants_pass() {
            self.begin_pass();
        } else if self.is_at_end {
            return;
        }
        let most = self.most();
        let is_little = |room: Amount| room.hints < most.hints / 4 || room.bytes < most.bytes / 4;
        let mut room = self.window.room(most);
        if room.is_none_or(is_little) && self.may_reach_further() {
            // Shards that are left alone make room for those that are not.
            self.set_aside();
            room = self.window.room(most);
        }
        let Some(room) = room else {
            return;
        };
        // Rather a large piece than many small ones, as long as there is something to send.
        if is_little(room) && self.scheduler.sends() > 0 && self.window.has_ready() {
            return;
        }
        // A part of the window, and the first part a small one, so that sends begin before it is
        // full.
        let piece = match self.window.holds_nothing() {
            true => self.settings.batch_bytes,
            false => self.settings.batch_bytes.max(most.bytes / 8),
        };
        let limits = PeekLimits {
            hints: usize::try_from(room.hints).unwrap_or(usize::MAX),
            payload_bytes: room.bytes.min(piece),
        };
        let reader = std::mem::take(&mut self.reader);
        let (store, node, from) = (&self.line.store, self.line.node, self.window.position());
        let quit = self.quit.clone();
        self.reading = Some(self.reads.read(store, reader, node, from, limits, quit));
    }

    fn begin_pass(&mut self) {
        self.window.begin_pass();
        self.reader.forget();
        self.is_at_end = false;
        self.pass_left = self.line.store.pending(self.line.node).hints;
    }

    fn set_aside(&mut self) {
        let waiting = self.waiting.iter().map(|(_, shard)| shard);
        for shard in waiting.chain(&self.behind_held) {
            self.window.set_aside(*shard);
        }
        self.window.set_failed_aside();
    }

    /// Reads the next hint of a shard that was set aside and may be tried again, by itself.
    pub(super) fn start_probe(&mut self) {
        let has_other = self.window.ready(Standing::Failed).is_some();
        let may_retry = || {
            let may_read = self.may_read();
            (self.scheduler).may_retry(&self.window, may_read, Instant::now())
        };
        if self.probing.is_some() || has_other || self.is_storm() || !may_retry() {
            return;
        }
        if let Some((shard, place)) = self.window.aside.next_due() {
            let limits = PeekLimits {
                hints: 1,
                payload_bytes: 1,
            };
            let (store, node) = (&self.line.store, self.line.node);
            let (reader, quit) = (Reader::default(), self.quit.clone());
            let read = self
                .reads
                .read(store, reader, node, Some(place), limits, quit);
            self.probing = Some((shard, read));
        }
    }

    pub(super) fn probed(&mut self, peeked: Peek) -> Result<(), Interrupted> {
        let Some((shard, _)) = self.probing.take() else {
            return Ok(());
        };
        self.check_reopens()?;
        let hint = match peeked {
            Peek::Hints(hints) => hints.into_iter().next(),
            // The next pass finds out.
            Peek::Empty | Peek::Damaged(_) => None,
        };
        self.window.put_back(shard, hint);
        if self.troubles.has_failed(shard) {
            self.window.stands(shard, Standing::Failed);
        }
        Ok(())
    }

    fn most(&self) -> Amount {
        self.reads.share(Amount {
            hints: self.settings.window_hints as u64,
            bytes: self.settings.window_bytes,
        })
    }

    pub(super) fn peeked(&mut self, peeked: Peek) -> Result<(), Interrupted> {
        self.check_reopens()?;
        match peeked {
            Peek::Empty => {
                self.is_at_end = true;
                // All that waits is in the window now; a limit may have taken the others.
                if self.troubles.keep_unknown(|shard| self.window.has(shard)) {
                    self.show_unknown_formats();
                }
            }
            Peek::Damaged(place) => self.damaged = Some(place.queue),
            Peek::Hints(hints) => {
                self.retired_below = self.line.store.retired_below();
                let most = self.most();
                self.pass_left = self.pass_left.saturating_sub(hints.len() as u64);
                self.hints_read += hints.len() as u64;
                self.window.push(hints, most);
            }
        }
        Ok(())
    }

    /// Has what does not read scrubbed once nothing is in front of it any more, and reads on from
    /// there.
    pub(super) async fn scrub(&mut self) -> Result<(), Interrupted> {
        if let Some(queue) = self.damaged.take_if(|_| self.window.is_empty()) {
            self.reader.forget();
            self.window = Window::default();
            let scrubbed = super::scrub(&self.line.store, self.line.node, queue).await;
            scrubbed.map_err(Interrupted::Store)?;
        }
        Ok(())
    }

    /// Whether shards may be read that are not in the window yet.
    pub(super) fn may_read(&self) -> bool {
        let is_blocked = self.is_at_end || self.damaged.is_some();
        self.reading.is_some() || (!is_blocked && self.may_reach_further())
    }

    /// Whether to read past shards that are left alone, for others. As long as the node takes
    /// nothing it may as well be down, and then it is not to cost a read of all that waits for it.
    fn may_reach_further(&self) -> bool {
        let window = self.settings.window_hints;
        let most = window.saturating_mul(self.scheduler.reach);
        self.has_answered || self.hints_read < most as u64
    }
}
