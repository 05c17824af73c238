//! What becomes of each send of a round.

use std::time::Duration;

use tokio::{
    task::JoinError,
    time::{sleep, timeout},
};

use super::{
    claim::Claim,
    end::Interrupted,
    give_up::{lose, make_dead_letter},
    round::Round,
    send::{Landed, Outcome},
    window::Standing,
};
use crate::{
    error::with_causes,
    events::Event,
    payload::{Payload, PayloadError},
    shard_writer::{ShardWriter, WriteError},
    stats::NodeState,
    store::DeadReason,
    types::{HintId, ShardId},
};

/// A send that is abandoned ends at once, unless the host's code blocks its thread; that is not
/// waited for longer than this.
const ABORTED_WITHIN: Duration = Duration::from_secs(1);

impl<P: Payload, W: ShardWriter<P>> Round<'_, P, W> {
    /// A task has ended. An error ends the round.
    pub(super) fn landed(&mut self, landed: Result<Landed, JoinError>) -> Result<(), Interrupted> {
        let Landed {
            shard,
            tried,
            took,
            outcome,
        } = match landed {
            Ok(landed) => landed,
            Err(error) if error.is_cancelled() => return Err(Interrupted::Stopped),
            // Not the call, which is guarded, but what it left behind; which shard it was is not
            // known any more.
            Err(error) => {
                let error = WriteError::retry(format!("the send panicked: {error}"));
                return Err(Interrupted::Retry(error));
            }
        };
        if !matches!(outcome, Outcome::GivenUp(..)) {
            let failed = matches!(outcome, Outcome::Sent(.., Err(WriteError::Retry { .. })));
            self.scheduler.ended(shard, took, failed);
        }
        match outcome {
            Outcome::NotBegun => {
                self.check_reopens()?;
                self.window.free(shard);
            }
            Outcome::Store(error) => return Err(Interrupted::Store(error)),
            Outcome::Nothing => {
                self.format_is_known(shard);
                self.window.keep_only(shard, tried, &[]);
                self.window.free(shard);
            }
            Outcome::Expired(kept) => {
                // Nothing of the shard leaves past what an earlier acknowledgement let go of and
                // may be back.
                self.check_reopens()?;
                self.window.keep_only(shard, tried, &kept);
                self.troubles.left(shard, tried.saturating_sub(kept.len()));
                self.window.free(shard);
            }
            Outcome::Undecodable(claim, error) => {
                self.check_reopens()?;
                self.still_there(shard, tried, &claim);
                match error {
                    PayloadError::UnknownFormat { found, written } => {
                        self.format_is_unknown(shard, claim, found, written);
                    }
                    error => {
                        self.format_is_known(shard);
                        self.make_dead_letter(
                            shard,
                            claim,
                            DeadReason::Undecodable,
                            with_causes(&error),
                        );
                    }
                }
            }
            Outcome::Sent(claim, sent, answer) => {
                // What an earlier acknowledgement let go of may be back, and is to come before
                // this.
                self.check_reopens()?;
                self.still_there(shard, tried, &claim);
                self.format_is_known(shard);
                self.answered(shard, claim, sent, answer, took)?;
            }
            Outcome::GivenUp(claim, result) => {
                result.map_err(Interrupted::Store)?;
                self.window.done(shard, claim.hints.len());
                self.troubles.left(shard, claim.hints.len());
                self.window.free(shard);
            }
        }
        Ok(())
    }

    /// What could not be claimed is somebody else's, who lets it leave.
    fn still_there(&mut self, shard: ShardId, tried: usize, claim: &Claim) {
        if claim.hints.len() < tried {
            self.window.keep_only(shard, tried, &claim.hints);
        }
    }

    /// It is not the hint's fault, nor the node's: nothing of the shard leaves until this host
    /// reads the format, or one that does takes over. The shard is looked at again after a while.
    fn format_is_unknown(&mut self, shard: ShardId, claim: Claim, found: u16, written: u16) {
        let is_news = self.troubles.unknown_format(shard, found, written);
        if is_news && let Some(head) = claim.hints.first() {
            let (node, mark) = (self.line.node, head.mark);
            tracing::warn!(
                node = node.0,
                shard = shard.0,
                queue = mark.queue.queue.0,
                sequence = mark.sequence.0,
                found_format = found,
                written_format = written,
                "hints of a format that is not read here wait for a host that reads it"
            );
            self.handle.progress.tell(Event::UnknownFormat {
                node,
                shard,
                hint: HintId {
                    store: self.line.store.id(),
                    queue: mark.queue.queue,
                    sequence: mark.sequence,
                },
                found,
                written,
            });
            self.show_unknown_formats();
        }
        self.window.free(shard);
    }

    fn format_is_known(&mut self, shard: ShardId) {
        if self.troubles.known_format(shard) {
            self.show_unknown_formats();
        }
    }

    pub(super) fn show_unknown_formats(&self) {
        self.handle.progress.unknown_format(self.troubles.unknown());
    }

    fn answered(
        &mut self,
        shard: ShardId,
        claim: Claim,
        sent: usize,
        answer: Result<usize, WriteError>,
        took: Duration,
    ) -> Result<(), Interrupted> {
        // A limit that the host's writer has itself may be shorter than ours.
        let is_quick = took < self.line.timeout / 2;
        let error = match answer {
            Ok(taken) => return self.taken(shard, claim, taken, is_quick),
            Err(error) => error,
        };
        let text = with_causes(&error);
        match error {
            WriteError::Obsolete { .. } => {
                self.node_answers();
                self.tasks.spawn(lose(shard, claim.first(sent), text));
            }
            WriteError::Reject { .. } => {
                self.node_answers();
                self.line.failed(&self.handle.progress, text.clone());
                if sent == 1 {
                    self.make_dead_letter(shard, claim, DeadReason::Rejected, text);
                } else {
                    self.troubles.rejected(shard, sent);
                    self.window.free(shard);
                }
            }
            WriteError::Retry { after, .. } => {
                let may_shrink = !is_quick && self.troubles.was_slow(shard, sent);
                self.failed(shard, claim, after, text, !may_shrink);
            }
            // Was settled into one of the others.
            WriteError::Partial { .. } => self.failed(shard, claim, None, text, true),
        }
        Ok(())
    }

    fn taken(
        &mut self,
        shard: ShardId,
        mut claim: Claim,
        taken: usize,
        is_quick: bool,
    ) -> Result<(), Interrupted> {
        self.node_answers();
        let hints: Vec<_> = claim.hints.drain(..taken.min(claim.hints.len())).collect();
        let left = self.line.store.deliver(self.line.node, &hints);
        left.map_err(Interrupted::Store)?;
        if let (Some(first), Some(last)) = (hints.first(), hints.last()) {
            let span = tracing::Span::current();
            if self.sent_bytes == 0 {
                span.record("queue", first.mark.queue.queue.0);
                span.record("first", first.mark.sequence.0);
            }
            self.sent_bytes += hints.iter().map(|it| it.hint.payload_bytes()).sum::<u64>();
            span.record("last", last.mark.sequence.0);
            span.record("bytes", self.sent_bytes);
        }
        self.window.done(shard, hints.len());
        self.troubles.taken(shard, hints.len(), is_quick);
        self.window.stands(shard, Standing::Well);
        self.window.free(shard);
        self.handle.progress.took(hints.len() as u64);
        self.line.note_status(&self.handle.progress, self.troubles);
        Ok(())
    }

    fn node_answers(&mut self) {
        self.has_answered = true;
        self.line.link.replayed();
        self.failing.clear();
        self.scheduler.answered();
        self.wish = None;
        self.handle.progress.well(NodeState::Replaying);
    }

    /// A send failed in a way that is worth a retry. It is an attempt of its first hint unless a
    /// smaller send may do better.
    fn failed(
        &mut self,
        shard: ShardId,
        claim: Claim,
        wish: Option<Duration>,
        error: String,
        is_attempt: bool,
    ) {
        tracing::debug!(node = self.line.node.0, shard = shard.0, %error, "a send failed");
        self.line.failed(&self.handle.progress, error.clone());
        self.line.link.shard_failed(shard, &error);
        self.wish = wish;
        *self.failing.entry(shard).or_default() += 1;
        self.window.stands(shard, Standing::Failed);
        let Some(head) = claim.hints.first().map(|hint| hint.mark.place()) else {
            return self.window.free(shard);
        };
        self.troubles.leave_alone(shard, wish);
        let attempts = match is_attempt {
            true => self.troubles.failed(shard, head),
            false => 0,
        };
        self.line.note_status(&self.handle.progress, self.troubles);
        if (1..=attempts).contains(&self.settings.max_attempts) {
            self.make_dead_letter(shard, claim, DeadReason::Attempts, error);
        } else {
            self.window.free(shard);
        }
    }

    /// Dead-letters the first hint of the claim; the shard waits until that is durable.
    fn make_dead_letter(
        &mut self,
        shard: ShardId,
        claim: Claim,
        reason: DeadReason,
        error: String,
    ) {
        let claim = claim.first(1);
        if let Some(head) = claim.hints.first().map(|hint| hint.mark.place()) {
            let cause = self.troubles.dead_cause(shard, head, reason, error);
            self.tasks.spawn(make_dead_letter(shard, claim, cause));
        }
    }

    /// Begins no send any more, and lets those under way finish: within their time, and told to
    /// stop for a while only. What is abandoned then was not acknowledged, so it will be sent
    /// again.
    pub(super) async fn settle(&mut self) {
        self.quit.cancel();
        let (stop, grace) = (self.handle.stop.clone(), self.settings.shutdown_grace);
        let over = async move {
            stop.cancelled().await;
            sleep(grace).await;
        };
        let mut over = std::pin::pin!(over);
        loop {
            let landed = tokio::select! {
                biased;
                landed = self.tasks.join_next() => landed,
                () = &mut over => None,
            };
            let Some(landed) = landed else { break };
            // The round has its end already; one that the store has a part in ends all that follow
            // in the same way.
            let _ = self.landed(landed);
        }
        // Ended for good, so that what they claimed is free when the node's next task reads it.
        let _ = timeout(ABORTED_WITHIN, self.tasks.shutdown()).await;
        if let Some(reading) = self.reading.take() {
            reading.await;
        }
    }
}
