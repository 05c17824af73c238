//! What the relay counts.

use std::{
    fmt,
    sync::atomic::{AtomicI64, AtomicU64},
    time::Duration,
};

use axum::http::StatusCode;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};

use super::report::Report;

/// Seconds that writes take.
const SECONDS: [f64; 10] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    path: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fate {
    fate: &'static str,
}

/// Figures since the start.
#[derive(Debug)]
pub struct Counts {
    requests: Family<Answered, Counter>,
    seconds: Histogram,
    bytes: Counter,
    points: Family<Fate, Counter>,
    bad_lines: Counter,
    packets: Family<Fate, Counter>,
    packet_bytes: Counter,
    connections: Gauge<i64, AtomicI64>,
    accepted: Counter<u64, AtomicU64>,
}

impl Counts {
    pub fn new() -> Counts {
        Counts {
            requests: Family::default(),
            seconds: Histogram::new(SECONDS),
            bytes: Counter::default(),
            points: Family::default(),
            bad_lines: Counter::default(),
            packets: Family::default(),
            packet_bytes: Counter::default(),
            connections: Gauge::default(),
            accepted: Counter::default(),
        }
    }

    /// A request was answered.
    pub fn answered(&self, path: &'static str, status: StatusCode, took: Duration) {
        let answered = Answered {
            path,
            status: status.as_u16(),
        };
        self.requests.get_or_create(&answered).inc();
        if path.ends_with("/write") {
            self.seconds.observe(took.as_secs_f64());
        }
    }

    /// A body came.
    pub fn came(&self, bytes: usize) {
        self.bytes.inc_by(bytes as u64);
    }

    /// Points were written, or not.
    pub fn wrote(&self, report: &Report, bad_lines: usize) {
        for (fate, points) in [
            ("taken", report.direct),
            ("queued", report.queued),
            ("refused", report.refused),
            ("failed", report.failed),
        ] {
            self.points.get_or_create(&Fate { fate }).inc_by(points);
        }
        self.bad_lines.inc_by(bad_lines as u64);
    }

    /// A packet came by UDP.
    pub fn packet(&self, fate: &'static str, bytes: usize) {
        self.packets.get_or_create(&Fate { fate }).inc();
        self.packet_bytes.inc_by(bytes as u64);
    }

    /// A connection begins; it ends when what this returns is dropped.
    pub fn connection(&self) -> Connected {
        self.connections.inc();
        self.accepted.inc();
        Connected(self.connections.clone())
    }

    /// All as OpenMetrics.
    pub fn text(&self, bytes_under_way: u64) -> Result<String, fmt::Error> {
        let mut all = Registry::with_prefix("hh_relay");
        let requests = "Requests that were answered";
        all.register("requests", requests, self.requests.clone());
        let seconds = "Times of writes, from their head to their answer";
        all.register_with_unit("write", seconds, Unit::Seconds, self.seconds.clone());
        let bytes = "Bodies of writes, unpacked";
        all.register_with_unit("body", bytes, Unit::Bytes, self.bytes.clone());
        let points = "Points by what became of them: taken by a server, queued for all, refused by \
                      the servers, failed";
        all.register("points", points, self.points.clone());
        let bad = "Lines that are no points";
        all.register("bad_lines", bad, self.bad_lines.clone());
        let packets = "Packets by UDP: taken or dropped";
        all.register("udp_packets", packets, self.packets.clone());
        let packet_bytes = "Packets by UDP";
        all.register_with_unit("udp", packet_bytes, Unit::Bytes, self.packet_bytes.clone());
        let open = "Connections that are open";
        all.register("connections", open, self.connections.clone());
        let accepted = "Connections that were accepted";
        all.register("accepted_connections", accepted, self.accepted.clone());
        let under_way = "Bodies that are under way";
        let bytes: ConstGauge<u64> = ConstGauge::new(bytes_under_way);
        all.register_with_unit("under_way", under_way, Unit::Bytes, bytes);
        let mut text = String::new();
        encode(&mut text, &all)?;
        Ok(text)
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub struct Connected(Gauge<i64, AtomicI64>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_with_their_units() {
        let counts = Counts::new();
        counts.answered("/write", StatusCode::NO_CONTENT, Duration::from_millis(2));
        counts.came(70);
        counts.packet("dropped", 5);
        let connected = counts.connection();
        let report = Report {
            direct: 3,
            ..Report::default()
        };
        counts.wrote(&report, 2);
        let text = counts.text(9).unwrap();
        for line in [
            "hh_relay_requests_total{path=\"/write\",status=\"204\"} 1",
            "hh_relay_write_seconds_bucket{le=\"0.003\"} 1",
            "hh_relay_body_bytes_total 70",
            "hh_relay_points_total{fate=\"taken\"} 3",
            "hh_relay_bad_lines_total 2",
            "hh_relay_udp_packets_total{fate=\"dropped\"} 1",
            "hh_relay_connections 1",
            "hh_relay_under_way_bytes 9",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert!(text.ends_with("# EOF\n"));
        drop(connected);
        assert!(counts.text(0).unwrap().contains("hh_relay_connections 0"));
    }
}
