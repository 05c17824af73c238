//! The consumer: takes hints by hand, and writes in the same transaction that it did.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use bytes::Bytes;

use super::{Session, failure::Failure, manual_node::MANUAL_NODE, rows, writing::Fate};
use crate::{
    event::{Event, tell},
    row_event::RowEvent,
    workload::read_payload,
};
use hinted_handoff::{Abort, Durability, Health, PeekedPoints};

impl Session {
    /// Consumes until the session stops or the store fails.
    pub async fn consume(&self) -> Result<(), Failure> {
        let mut random = self.random(101);
        let mut consumer = self.handoff.consumer(MANUAL_NODE)?;
        while self.goes_on() {
            let ready = tokio::time::timeout(Duration::from_millis(5), consumer.ready());
            match ready.await {
                Err(_) => continue,
                Ok(Ok(())) => {}
                Ok(Err(_)) => break,
            }
            let peeked = consumer.peek(random.usize(1..9)).await;
            let peeked = match peeked {
                Ok(peeked) => peeked,
                Err(error) if matches!(self.handoff.health(), Health::Serving) => {
                    return Err(error.into());
                }
                Err(_) => break,
            };
            if !peeked.is_empty() {
                self.take(&peeked, &mut random).await?;
            }
            if random.u8(..20) == 0 {
                drop(consumer);
                consumer = self.handoff.consumer(MANUAL_NODE)?;
            }
        }
        Ok(())
    }

    /// One transaction: a row for each, and all of them leave the queue. One in ten gives up after
    /// that.
    async fn take(
        &self,
        peeked: &[PeekedPoints<Bytes>],
        random: &mut fastrand::Rng,
    ) -> Result<(), Failure> {
        let read = |hint: &PeekedPoints<Bytes>| {
            let number = read_payload(&hint.points, MANUAL_NODE, hint.shard);
            number.ok_or_else(|| format!("{}: a payload that nobody wrote", hint.id))
        };
        let numbers: Vec<u64> = peeked.iter().map(read).collect::<Result<_, _>>()?;
        let doomed = random.u8(..10) == 0;
        // A settling waits until what is consumed here is told as well.
        let _open = self.node.gate.read().await;
        let trees = [&self.tables.consumed];
        let taken = self.handoff.transaction(&trees, |rows, hints| {
            let [consumed] = rows else {
                return Err(Abort::new("one tree was named"));
            };
            for (hint, number) in peeked.iter().zip(&numbers) {
                if consumed.get(rows::key(*number))?.is_some() {
                    tell(&Event::Rows(RowEvent::Wrong { number: *number }))?;
                }
                consumed.insert(rows::key(*number), hint.id.to_string().as_bytes())?;
            }
            hints.ack(peeked)?;
            match doomed {
                true => Err(Abort::new("this one gives up")),
                false => Ok(()),
            }
        });
        if let Err(error) = taken.await {
            return Fate::of(error, doomed).map(drop);
        }
        for (hint, number) in peeked.iter().zip(&numbers) {
            self.node.delivered.fetch_add(1, Relaxed);
            tell(&Event::Delivered {
                id: hint.id,
                number: *number,
                node: MANUAL_NODE,
                shard: hint.shard,
            })?;
        }
        if self.is_durable_now(random).await {
            for (hint, number) in peeked.iter().zip(numbers) {
                let id = hint.id;
                tell(&Event::Rows(RowEvent::Consumed { id, number }))?;
            }
        }
        Ok(())
    }

    /// Whether what was just answered is durable: with `Buffered` some wait for that.
    pub async fn is_durable_now(&self, random: &mut fastrand::Rng) -> bool {
        match self.workload.config.durability {
            Durability::Sync => true,
            _ => {
                random.u8(..100) < self.workload.syncs_percent && self.handoff.sync().await.is_ok()
            }
        }
    }
}
