//! Clients that write until they are answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    input::{self, BATCH, CLIENTS},
    relay::until,
};

/// Clients that write at the same time, each its own series.
pub struct Clients {
    threads: Vec<JoinHandle<()>>,
    answered: Arc<AtomicU64>,
}

impl Clients {
    /// Begins to write so many points to one address, each body until it is taken.
    pub fn start(url: &str, points: u64) -> Clients {
        let answered = Arc::new(AtomicU64::new(0));
        let threads = (0..CLIENTS).map(|client| {
            let (url, answered) = (url.to_owned(), Arc::clone(&answered));
            thread::spawn(move || {
                for batch in input::batches(points) {
                    write(&url, &input::batch(client, batch));
                    answered.fetch_add(BATCH, Relaxed);
                }
            })
        });
        Clients {
            threads: threads.collect(),
            answered,
        }
    }

    /// Waits until a part of all points is answered.
    pub fn until_answered(&self, points: u64) {
        until("answers", || {
            (self.answered.load(Relaxed) >= points).then_some(())
        });
    }

    /// Whether some of it is not answered yet.
    pub fn are_writing(&self) -> bool {
        self.threads.iter().any(|thread| !thread.is_finished())
    }

    /// Waits until all is answered.
    pub fn finish(self) {
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

/// How long clients take that write all points to each of these servers themselves, side by side.
pub fn time_without_a_relay(urls: &[String], database: &str, points: u64) -> Duration {
    let begin = Instant::now();
    let write_to_all = |client, batch| {
        let body = input::batch(client, batch);
        thread::scope(|scope| {
            for url in urls {
                scope.spawn(|| assert_eq!(post(url, database, &body).unwrap().0, 204));
            }
        });
    };
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || input::batches(points).for_each(|it| write_to_all(client, it)));
        }
    });
    begin.elapsed()
}

/// Writes a body until it is taken.
pub fn write(url: &str, body: &str) {
    until("a write", || match post(url, "metrics", body) {
        Some((204, _)) => Some(()),
        None | Some((500.., _)) => None,
        Some((status, text)) => panic!("answered with {status}: {text}"),
    });
}

/// Status and text; `None` if there was no answer.
pub fn post(url: &str, database: &str, body: &str) -> Option<(u16, String)> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(30)))
        .http_status_as_error(false)
        .build()
        .into();
    let sent = agent.post(format!("{url}/write?db={database}")).send(body);
    let mut answer = sent.ok()?;
    let text = answer.body_mut().read_to_string().ok()?;
    Some((answer.status().as_u16(), text))
}
