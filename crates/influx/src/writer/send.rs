//! The batches of one write, sent to a server.

use std::{io, sync::Arc};

use bytes::Bytes;
use hinted_handoff::{Batch, WriteError};
use tokio::{
    task::{spawn_blocking, yield_now},
    time::Instant,
};

use super::{
    answer::{Answer, Meaning},
    body::{Body, next_body},
    node::{NoAnswer, Node},
    refused::Refused,
    settings::WriterSettings,
    together::Outcome,
};
use crate::{LinePoints, Target};

/// So many requests, about, are made to find the points that a server refuses.
const SEARCH_REQUESTS: u32 = 64;

/// What is larger is compressed away from the runtime's threads; less takes some 100 us at most.
const GZIP_AWAY_FROM_BYTES: usize = 16 * 1024;

const OTHERS_LATER: &str = "there was no time for the others";

/// One write that is being sent.
#[derive(Debug)]
pub struct Sending<'a> {
    node: &'a Node,
    settings: &'a WriterSettings,
    since: Instant,
}

impl<'a> Sending<'a> {
    pub fn new(node: &'a Node, settings: &'a WriterSettings) -> Self {
        let since = Instant::now();
        Sending {
            node,
            settings,
            since,
        }
    }

    /// Sends all batches, in as few bodies as they fit in, in turn.
    pub async fn send(&self, batches: &[Batch<LinePoints>]) -> Result<(), WriteError> {
        if let [batch] = batches
            && batch.hint.is_none()
        {
            return self.send_direct(batch).await;
        }
        let mut rest = batches;
        let mut max_bytes = self.settings.max_body_bytes;
        while let Some(first) = rest.first() {
            let taken = batches.len() - rest.len();
            // What takes too long as a whole is cancelled, and what was taken would be sent again.
            if taken > 0 && self.is_late() {
                return Err(WriteError::partial(taken, OTHERS_LATER));
            }
            let target = first.points.target();
            let count = match self.node.troubles.is_missing(&target.database) {
                // It is asked for with as little as there is.
                true => 1,
                false => next_body(rest, max_bytes),
            };
            let (body, others) = rest.split_at(count);
            let sent = match body {
                [batch] => self.send_one(batch).await,
                batches => self.send_together(target, batches).await,
            };
            match sent.map_err(|error| after(taken, error))? {
                Sent::Taken => rest = others,
                Sent::TooLarge { bytes } => max_bytes = bytes / 2,
            }
        }
        Ok(())
    }

    /// Sends a direct write, with others that wait to be sent.
    async fn send_direct(&self, batch: &Batch<LinePoints>) -> Result<(), WriteError> {
        let (target, own) = (batch.points.target(), batch.points.lines());
        // A server without the database is asked for it with as little as there is.
        if self.node.troubles.is_missing(&target.database) {
            return self.send_one(batch).await.map(drop);
        }
        let outcome = match self.node.together.turn(target, own).await {
            Err(outcome) => outcome,
            Ok(mut turn) => {
                // The other shards of the same body come now.
                yield_now().await;
                let lines = turn.take_along(own, self.settings.max_body_bytes);
                if lines.len() == 1 {
                    return self.send_one(batch).await.map(drop);
                }
                let outcome = self.post_together(target, lines).await;
                turn.end(&outcome);
                outcome
            }
        };
        match outcome {
            Outcome::Taken => Ok(()),
            Outcome::Alone => self.send_one(batch).await.map(drop),
            Outcome::Later(answer, None) => Err(WriteError::retry(answer)),
            Outcome::Later(answer, Some(after)) => Err(WriteError::retry_after(after, answer)),
            Outcome::NoAnswer(why) => Err(WriteError::retry(why)),
        }
    }

    /// Sends the lines of several direct writes.
    async fn post_together(&self, target: &Target, lines: Vec<Bytes>) -> Outcome {
        match self.post(target, lines).await {
            Ok((_, Meaning::Taken)) => Outcome::Taken,
            Ok((answer, Meaning::Retry)) => {
                let after = answer.retry_after;
                Outcome::Later(answer.into_error(), after)
            }
            Ok(_) | Err(NotPosted::Body(_)) => Outcome::Alone,
            Err(NotPosted::NoAnswer(why)) => Outcome::NoAnswer(Arc::new(why)),
        }
    }

    /// Sends batches of one target as one body. If some of it is refused, replay finds out which.
    async fn send_together(
        &self,
        target: &Target,
        batches: &[Batch<LinePoints>],
    ) -> Result<Sent, WriteError> {
        let lines: Vec<_> = batches.iter().map(|it| it.points.lines().clone()).collect();
        let bytes = lines.iter().map(|it| it.len() as u64).sum();
        let posted = self.post(target, lines).await;
        let (answer, meaning) = posted.map_err(WriteError::retry)?;
        match meaning {
            Meaning::Taken => Ok(Sent::Taken),
            Meaning::TooLarge => Ok(Sent::TooLarge { bytes }),
            meaning => Err(self.error(answer, meaning, batches)),
        }
    }

    /// Sends a batch, in halves of halves if it is too large. If the server refuses some points of
    /// it, halves find out which: points that are written twice are the same to InfluxDB.
    async fn send_one(&self, batch: &Batch<LinePoints>) -> Result<Sent, WriteError> {
        let mut open = vec![batch.points.clone()];
        let mut refused = Refused::default();
        let mut requests = 0;
        while let Some(points) = open.pop() {
            let lines = vec![points.lines().clone()];
            let posted = self.post(points.target(), lines).await;
            let (answer, meaning) = posted.map_err(WriteError::retry)?;
            requests += 1;
            let has_sense = match meaning {
                Meaning::Taken => continue,
                Meaning::TooLarge => true,
                Meaning::Reject => {
                    let takes_some = answer.is_partial() && answer.dropped() < points.points();
                    takes_some && requests < SEARCH_REQUESTS && !self.is_late()
                }
                meaning => return Err(self.error(answer, meaning, std::slice::from_ref(batch))),
            };
            match points.halves().filter(|_| has_sense) {
                Some([first, second]) => open.extend([second, first]),
                None => refused.add(&points, answer),
            }
        }
        match refused.into_answer(batch.points.points()) {
            None => Ok(Sent::Taken),
            Some(answer) => Err(WriteError::reject(answer)),
        }
    }

    async fn post(
        &self,
        target: &Target,
        lines: Vec<Bytes>,
    ) -> Result<(Answer, Meaning), NotPosted> {
        let length: usize = lines.iter().map(Bytes::len).sum();
        let body = match self.settings.gzip && length >= GZIP_AWAY_FROM_BYTES {
            true => spawn_blocking(move || Body::of(&lines, true)).await,
            false => Ok(Body::of(&lines, self.settings.gzip)),
        };
        let body = body.map_err(io::Error::other)??;
        let answer = self.node.write(target, &body).await?;
        let meaning = answer.meaning(&self.settings.answers);
        self.node.troubles.heard(&target.database, &answer, meaning);
        Ok((answer, meaning))
    }

    fn is_late(&self) -> bool {
        self.since.elapsed() >= self.node.timeout / 2
    }

    /// What an answer is to batches of which it took none.
    fn error(&self, answer: Answer, meaning: Meaning, batches: &[Batch<LinePoints>]) -> WriteError {
        let max_age = self.settings.missing_database_max_age;
        // If the first of several is, replay finds it.
        let is_old = |batch: &Batch<LinePoints>| {
            let age = batch.enqueued.elapsed().unwrap_or_default();
            batch.hint.is_some() && age >= max_age
        };
        let after = answer.retry_after;
        let answer = answer.into_error();
        match meaning {
            Meaning::Obsolete => WriteError::obsolete(answer),
            Meaning::Reject => WriteError::reject(answer),
            Meaning::Missing if batches.first().is_some_and(is_old) => WriteError::reject(answer),
            _ => match after {
                Some(after) => WriteError::retry_after(after, answer),
                None => WriteError::retry(answer),
            },
        }
    }
}

/// Why there is no answer to a body.
#[derive(Debug, thiserror::Error)]
enum NotPosted {
    /// It was not made.
    #[error(transparent)]
    Body(#[from] io::Error),
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
}

/// What became of a body.
enum Sent {
    Taken,
    TooLarge { bytes: u64 },
}

/// The same when some batches were taken before.
fn after(taken: usize, error: WriteError) -> WriteError {
    match error {
        error if taken == 0 => error,
        WriteError::Retry { source, .. }
        | WriteError::Reject { source }
        | WriteError::Obsolete { source }
        | WriteError::Partial { source, .. } => WriteError::partial(taken, source),
        error => error,
    }
}
