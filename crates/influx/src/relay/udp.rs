//! Lines that come in by UDP.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use hinted_handoff::ConsistencyLevel;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::UdpSocket,
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{counts::Counts, report::Verdict, settings::UdpSettings, write::Writes};
use crate::{Points, Target};

/// The largest packet.
const PACKET_BYTES: usize = 64 * 1024;
/// Between two lines of the log about what goes wrong.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// A socket for lines, and where they go.
pub struct Intake {
    socket: UdpSocket,
    target: Target,
    settings: UdpSettings,
}

/// The socket of a table `[[udp]]`.
pub fn bind(settings: &UdpSettings) -> io::Result<Intake> {
    let kind = Domain::for_address(settings.listen);
    let socket = Socket::new(kind, Type::DGRAM, Some(Protocol::UDP))?;
    if settings.read_buffer > 0 {
        let bytes = usize::try_from(settings.read_buffer).unwrap_or(usize::MAX);
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&settings.listen.into())?;
    Ok(Intake {
        socket: UdpSocket::from_std(socket.into())?,
        target: Target {
            database: settings.database.clone(),
            retention_policy: settings
                .retention_policy
                .clone()
                .filter(|it| !it.is_empty()),
            precision: settings.precision,
        },
        settings: settings.clone(),
    })
}

impl Intake {
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Receives and writes until `stop`; what was received is written then, too.
    pub async fn run(
        self,
        writes: Writes,
        level: ConsistencyLevel,
        counts: Arc<Counts>,
        stop: CancellationToken,
    ) {
        // One batch is written while the next one is gathered.
        let (full, batches) = mpsc::channel(1);
        let writing = tokio::spawn(write(batches, writes, level, Arc::clone(&counts)));
        self.gather(full, &counts, stop).await;
        if let Err(error) = writing.await {
            tracing::error!(%error, "lines by UDP are not written any more");
        }
    }

    /// Ends, with the channel, when it is to stop.
    async fn gather(self, full: mpsc::Sender<Points>, counts: &Counts, stop: CancellationToken) {
        let mut batch = Batch::new(&self);
        let mut packet = vec![0; PACKET_BYTES];
        let mut told = Told::default();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                room = full.reserve(), if batch.is_due() => match room {
                    Ok(room) => room.send(std::mem::replace(&mut batch, Batch::new(&self)).points),
                    Err(_) => return,
                },
                () = sleep_until(batch.due), if batch.waits() => batch.is_late = true,
                received = self.socket.recv(&mut packet) => match received {
                    Ok(bytes) => {
                        let lines = packet.get(..bytes).unwrap_or_default();
                        let fate = match batch.add(lines) {
                            true => "taken",
                            false => "dropped",
                        };
                        counts.packet(fate, bytes);
                        if fate == "dropped" && told.is_time() {
                            tracing::warn!(
                                database = %self.target.database,
                                "packets by UDP are dropped: the servers take them too slowly"
                            );
                        }
                    }
                    Err(error) => {
                        if told.is_time() {
                            tracing::warn!(%error, "a packet could not be received");
                        }
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                },
            }
        }
        if !batch.is_empty() {
            // The writer ends only when this does.
            let _ = full.send(batch.points).await;
        }
    }
}

/// Packets that are written together.
struct Batch {
    points: Points,
    /// Of the packets.
    bytes: u64,
    bytes_max: u64,
    time: Duration,
    /// When it waits no longer for others: so long after its first packet.
    due: Instant,
    is_late: bool,
}

impl Batch {
    fn new(intake: &Intake) -> Batch {
        Batch {
            points: Points::read(intake.target.clone(), b"", SystemTime::now()),
            bytes: 0,
            bytes_max: intake.settings.batch_bytes,
            time: intake.settings.batch_time,
            due: Instant::now(),
            is_late: false,
        }
    }

    /// Whether it took a packet. Each packet has its own time, so that two points of one series
    /// that have none stay two.
    fn add(&mut self, lines: &[u8]) -> bool {
        if self.bytes >= self.bytes_max {
            return false;
        }
        if self.bytes == 0 {
            self.due = Instant::now() + self.time;
        }
        self.bytes += lines.len() as u64;
        self.points.read_more(lines, SystemTime::now());
        if self.is_empty() {
            // Comments and blanks alone are never due, and would keep all others out.
            self.bytes = 0;
        }
        true
    }

    fn is_empty(&self) -> bool {
        self.points.points() == 0 && self.points.bad_lines() == 0
    }

    fn is_due(&self) -> bool {
        !self.is_empty() && (self.is_late || self.bytes >= self.bytes_max)
    }

    fn waits(&self) -> bool {
        !self.is_late && !self.is_empty()
    }
}

async fn write(
    mut batches: mpsc::Receiver<Points>,
    writes: Writes,
    level: ConsistencyLevel,
    counts: Arc<Counts>,
) {
    let mut told = Told::default();
    while let Some(points) = batches.recv().await {
        let (bad, bad_lines) = (points.bad().to_vec(), points.bad_lines());
        let report = writes.write(points, level).await;
        counts.wrote(&report, bad_lines);
        let why = match report.verdict(&bad, bad_lines) {
            Verdict::Written => continue,
            Verdict::Bad(why)
            | Verdict::Missing(why)
            | Verdict::Later(why)
            | Verdict::Internal(why) => why,
        };
        if told.is_time() {
            tracing::warn!(%why, "lines by UDP were not all written");
        }
    }
}

/// When something was told of last.
#[derive(Default)]
struct Told(Option<Instant>);

impl Told {
    fn is_time(&mut self) -> bool {
        let is_time = self.0.is_none_or(|at| at.elapsed() >= TOLD_EVERY);
        if is_time {
            self.0 = Some(Instant::now());
        }
        is_time
    }
}
