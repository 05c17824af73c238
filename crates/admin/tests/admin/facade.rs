//! The `metrics` facade has what `/metrics` has, as the facade's Prometheus exporter prints it.
//!
//! Recorders are local to the thread of a test, so that tests do not see each other's figures.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::Router;
use hinted_handoff::{NodeId, Pause};
use hinted_handoff_admin::{NoRuntime, Reporter, Settings};
use metrics::with_local_recorder;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use crate::common::*;

const PREFIX: &str = "hinted_handoff_";

/// Samples by name and labels, and the type and help of each name of a sample.
#[derive(Debug, Default)]
struct Printed {
    samples: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
    helps: BTreeMap<String, String>,
}

impl Printed {
    /// Buckets are left out. Sum and count of a histogram are gauges.
    fn of(text: &str) -> Printed {
        let mut it = Printed::default();
        let mut meta: BTreeMap<(String, String), String> = BTreeMap::new();
        for line in text.lines().filter(|it| !it.is_empty() && *it != "# EOF") {
            if let Some(line) = line.strip_prefix("# ") {
                let words: Vec<&str> = line.splitn(3, ' ').collect();
                meta.insert((words[0].to_owned(), words[1].to_owned()), words[2].into());
                continue;
            }
            let (name, value) = line.rsplit_once(' ').expect(line);
            let bare = name.split('{').next().unwrap();
            if bare.ends_with("_bucket") {
                continue;
            }
            let value = value.parse().expect(line);
            let twice = it.samples.insert(name.to_owned(), value).is_some();
            assert!(!twice, "{line}");
            let suffixes = ["", "_total", "_sum", "_count"];
            let family = suffixes.iter().filter_map(|end| bare.strip_suffix(end));
            let told = |what: &str| {
                let told = family.clone().find_map(|family| {
                    let told = meta.get(&(what.to_owned(), family.to_owned()))?;
                    Some(told.replace("histogram", "gauge"))
                });
                told.unwrap_or_else(|| panic!("no {what} of {bare}"))
            };
            it.types.insert(bare.to_owned(), told("TYPE"));
            it.helps.insert(bare.to_owned(), told("HELP"));
        }
        it
    }

    fn value(&self, name: &str) -> f64 {
        let value = self.samples.get(&format!("{PREFIX}{name}"));
        *value.unwrap_or_else(|| panic!("no {name} in {:?}", self.samples.keys()))
    }

    fn sum(&self, name: &str) -> f64 {
        let start = format!("{PREFIX}{name}{{");
        let of = self.samples.iter().filter(|(it, _)| it.starts_with(&start));
        of.map(|(_, value)| value).sum()
    }

    /// Without what is another figure at each look: ages, and what others do with the disk.
    fn still(&self) -> BTreeMap<&str, f64> {
        let moving = ["node_oldest_age_seconds", "free_disk_bytes"];
        let still = self.samples.iter().filter(|(name, _)| {
            let name = name.strip_prefix(PREFIX).unwrap_or(name);
            !moving.iter().any(|it| name.starts_with(it))
        });
        still.map(|(name, value)| (name.as_str(), *value)).collect()
    }
}

async fn text(router: &Router) -> Printed {
    Printed::of(get(router, "/metrics").await.text())
}

fn exporter() -> PrometheusRecorder {
    PrometheusBuilder::new().build_recorder()
}

fn report(reporter: &Reporter, recorder: &PrometheusRecorder) -> Printed {
    with_local_recorder(recorder, || reporter.report());
    Printed::of(&recorder.handle().render())
}

async fn busy_host() -> Host {
    let host = Host::start().await;
    host.hint(AWAY, &["a", "bb"]).await;
    host.hint(WELL, &["ccc"]).await;
    host.with_letter("poison").await;
    let delivered = |it: &hinted_handoff::NodeStats| it.node == WELL && it.delivered.hints == 1;
    host.until(|it| it.nodes.iter().any(delivered)).await;
    host.handoff.pause_all(Pause::UntilRestart).await.unwrap();
    let limited = host.handoff.reconfigure(|it| it.max_hints = Some(1_000));
    limited.await.unwrap();
    host
}

fn named() -> Settings {
    Settings {
        node_names: Some(Arc::new(|node| Some(format!("replica \"{node}\"")))),
        ..Settings::default()
    }
}

#[tokio::test]
async fn a_report_has_each_gauge_and_counter_of_the_text_and_nothing_else() {
    let host = busy_host().await;
    let (router, reporter) = (host.router(named()), Reporter::new(&host.handoff, named()));
    let reporter = reporter.unwrap();
    for is_recommended in [false, true] {
        let naming = PrometheusBuilder::new().with_recommended_naming(is_recommended);
        let recorder = naming.build_recorder();
        // Nothing is asked of the nodes, but what was in flight may still end.
        let mut tries = 0;
        let (before, reported, after) = loop {
            let before = text(&router).await;
            let reported = report(&reporter, &recorder);
            let after = text(&router).await;
            if before.still() == after.still() {
                break (before, reported, after);
            }
            tries += 1;
            assert!(tries < 1_000, "the figures never stand still");
        };
        println!("{} samples, {tries} tries", reported.samples.len());
        assert_eq!(reported.still(), before.still());
        let names = |it: &Printed| it.samples.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&reported), names(&before));
        assert_eq!(reported.types, before.types);
        assert_eq!(reported.helps, before.helps);
        let age = |it: &Printed| it.value("node_oldest_age_seconds{node=\"2\"}");
        assert!((age(&before)..=age(&after)).contains(&age(&reported)));
        assert!(reported.value("free_disk_bytes") > 0.0);
        assert_eq!(reported.value("limit_hints"), 1_000.0);
        assert_eq!(
            reported.value("node_delivered_bytes_total{node=\"3\"}"),
            3.0
        );
        assert!(reported.value("append_seconds_count") >= 4.0);
        assert!(reported.value("append_seconds_sum") > 0.0);
    }
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_node_that_is_gone_counts_for_nothing() {
    let host = busy_host().await;
    let reporter = Reporter::new(&host.handoff, named()).unwrap();
    let recorder = exporter();
    let before = report(&reporter, &recorder);
    assert_eq!(before.value("node_pending_hints{node=\"2\"}"), 2.0);
    assert_eq!(before.value("node_state{node=\"2\",state=\"paused\"}"), 1.0);

    host.handoff.remove_node(AWAY).await.unwrap();
    let unlimited = host.handoff.reconfigure(|it| it.max_hints = None);
    unlimited.await.unwrap();
    let after = report(&reporter, &recorder);
    assert_eq!(after.value("node_pending_hints{node=\"2\"}"), 0.0);
    assert_eq!(after.value("node_pending_bytes{node=\"2\"}"), 0.0);
    assert_eq!(after.value("node_state{node=\"2\",state=\"paused\"}"), 0.0);
    assert!(after.value("node_oldest_age_seconds{node=\"2\"}").is_nan());
    assert!(after.value("limit_hints").is_nan(), "0 would be a limit");
    assert_eq!(
        after.sum("node_pending_hints"),
        after.value("pending_hints")
    );
    let name = "node_name{node=\"2\",name=\"replica \\\"2\\\"\"}";
    assert_eq!((before.value(name), after.value(name)), (1.0, 0.0));
    let enqueued = "node_enqueued_hints_total{node=\"2\"}";
    assert_eq!(after.value(enqueued), 2.0, "a counter never falls");

    // Back under the same number.
    host.hint(AWAY, &["anew"]).await;
    let back = report(&reporter, &recorder);
    assert_eq!(back.value("node_pending_hints{node=\"2\"}"), 1.0);
    assert!(back.value("node_oldest_age_seconds{node=\"2\"}") >= 0.0);
    assert_eq!(back.value(enqueued), 3.0, "it goes on");
    assert_eq!(text(&host.router(named())).await.value(enqueued), 1.0);
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_exporter_that_drops_idle_series_drops_those_of_a_node_that_is_gone() {
    let host = busy_host().await;
    let reporter = Reporter::new(&host.handoff, named()).unwrap();
    let builder = PrometheusBuilder::new();
    let all = metrics_util::MetricKindMask::ALL;
    let recorder = builder
        .idle_timeout(all, Some(Duration::ZERO))
        .build_recorder();
    let before = report(&reporter, &recorder);
    host.handoff.remove_node(AWAY).await.unwrap();
    report(&reporter, &recorder);
    let after = report(&reporter, &recorder);
    let of_it = |it: &Printed| {
        let names = it.samples.keys();
        names.filter(|it| it.contains("node=\"2\"")).count()
    };
    assert!(of_it(&before) > 10, "{before:?}");
    assert_eq!(of_it(&after), 0, "{after:?}");
    assert_eq!(after.samples.len() + of_it(&before), before.samples.len());
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn sums_are_right_whichever_nodes_are_the_deepest() {
    let host = Host::start().await;
    host.handoff.pause_all(Pause::UntilRestart).await.unwrap();
    let settings = Settings {
        metrics_nodes: 2,
        ..Settings::default()
    };
    let reporter = Reporter::new(&host.handoff, settings).unwrap();
    let recorder = exporter();
    for round in 0..24u64 {
        // Another node becomes the deepest one each time.
        let more = vec!["a"; round as usize + 1];
        host.hint(NodeId(10 + round % 6), &more).await;
        let now = report(&reporter, &recorder);
        for (of_nodes, all) in [
            ("node_pending_hints", "pending_hints"),
            ("node_enqueued_hints_total", "enqueued_hints_total"),
        ] {
            assert_eq!(now.sum(of_nodes), now.value(all), "{of_nodes}, {round}");
        }
    }
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn of_a_handoff_that_is_gone_nothing_is_known_and_the_next_one_counts_on() {
    let host = busy_host().await;
    let mut reporter = Reporter::new(&host.handoff, named()).unwrap();
    let recorder = exporter();
    let before = report(&reporter, &recorder);
    assert_eq!(before.value("up"), 1.0);
    assert_eq!(before.value("enqueued_hints_total"), 4.0);

    host.handoff.shutdown().await.unwrap();
    drop(host);
    let gone = report(&reporter, &recorder);
    assert_eq!(gone.value("up"), 0.0);
    assert_eq!(gone.value("health{state=\"shut_down\"}"), 1.0);
    for unknown in ["pending_hints", "node_pending_hints{node=\"2\"}"] {
        assert!(gone.value(unknown).is_nan(), "{unknown}");
    }
    assert_eq!(gone.value("enqueued_hints_total"), 4.0);

    let host = Host::start().await;
    host.hint(AWAY, &["a", "b", "c", "d", "e"]).await;
    reporter.follow(&host.handoff).unwrap();
    let next = report(&reporter, &recorder);
    assert_eq!(next.value("up"), 1.0);
    assert_eq!(next.value("pending_hints"), 5.0);
    assert_eq!(next.value("enqueued_hints_total"), 9.0);
    assert_eq!(next.value("node_enqueued_hints_total{node=\"2\"}"), 7.0);
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn reporters_are_refused_where_no_runtime_is_and_need_no_recorder() {
    let host = Host::start().await;
    let handoff = host.handoff.clone();
    let refused = std::thread::spawn(move || Reporter::new(&handoff, Settings::default()).err());
    assert!(matches!(refused.join().unwrap(), Some(NoRuntime { .. })));
    Reporter::new(&host.handoff, Settings::default())
        .unwrap()
        .report();
    host.handoff.shutdown().await.unwrap();
}
