//! `/metrics` is OpenMetrics, adds up, and stays small.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use hinted_handoff::{NodeId, Pause};
use hinted_handoff_admin::Settings;

use crate::common::*;

/// Samples by name and labels, checked as they are read.
#[derive(Debug, Default)]
struct Scrape {
    samples: BTreeMap<String, f64>,
    types: BTreeMap<String, String>,
}

impl Scrape {
    /// Reads OpenMetrics text strictly: the order of its lines, names, labels, values and the end.
    fn of(text: &str) -> Scrape {
        let mut read = Scrape::default();
        let mut family = String::new();
        let lines: Vec<&str> = text
            .strip_suffix('\n')
            .expect("a line at the end")
            .split('\n')
            .collect();
        let (end, lines) = lines.split_last().unwrap();
        assert_eq!(*end, "# EOF");
        for line in lines {
            match line.strip_prefix("# ") {
                Some(meta) => read.meta(meta, &mut family),
                None => read.sample(line, &family),
            }
        }
        read
    }

    fn meta(&mut self, meta: &str, family: &mut String) {
        let mut words = meta.splitn(3, ' ');
        let (what, name, rest) = (
            words.next().unwrap(),
            words.next().unwrap(),
            words.next().unwrap(),
        );
        assert!(
            is_name(name) && name.starts_with("hinted_handoff_"),
            "{meta}"
        );
        match what {
            "HELP" => {
                assert!(!rest.is_empty());
                *family = name.to_owned();
            }
            "TYPE" => {
                assert!(["gauge", "counter", "histogram"].contains(&rest), "{meta}");
                assert_eq!(name, family, "its help comes first");
                let before = self.types.insert(name.to_owned(), rest.to_owned());
                assert_eq!(before, None, "{name} is told of twice");
            }
            "UNIT" => assert!(
                name.ends_with(&format!("_{rest}")) && name == family,
                "{meta}"
            ),
            _ => panic!("{meta}"),
        }
    }

    fn sample(&mut self, line: &str, family: &str) {
        let (name, value) = line.rsplit_once(' ').expect(line);
        let bare = name.split('{').next().unwrap();
        let suffixes: &[&str] = match self.types[family].as_str() {
            "counter" => &["_total"],
            "histogram" => &["_sum", "_count", "_bucket"],
            _ => &[""],
        };
        let suffix = bare.strip_prefix(family);
        assert!(suffix.is_some_and(|it| suffixes.contains(&it)), "{line}");
        if let Some(labels) = name.strip_prefix(bare).filter(|it| !it.is_empty()) {
            let labels = labels
                .strip_prefix('{')
                .and_then(|it| it.strip_suffix('}'))
                .expect(line);
            for label in labels.split("\",") {
                let (key, value) = label.split_once("=\"").expect(line);
                assert!(
                    ["node", "name", "reason", "outcome", "state", "le"].contains(&key),
                    "{line}"
                );
                assert!(!value.trim_end_matches('"').contains(['"', '\n']), "{line}");
            }
        }
        let value: f64 = value.parse().expect(line);
        assert!(value.is_finite() && value >= 0.0, "{line}");
        assert_eq!(
            self.samples.insert(name.to_owned(), value),
            None,
            "{name} is there twice"
        );
    }

    fn value(&self, name: &str) -> f64 {
        let name = format!("hinted_handoff_{name}");
        *self
            .samples
            .get(&name)
            .unwrap_or_else(|| panic!("no {name}"))
    }

    /// All samples of a family, by their labels.
    fn family(&self, name: &str) -> BTreeMap<&str, f64> {
        let start = format!("hinted_handoff_{name}{{");
        let of = self.samples.iter().filter_map(|(name, value)| {
            Some((name.strip_prefix(&start)?.trim_end_matches('}'), *value))
        });
        of.collect()
    }

    fn sum(&self, name: &str) -> f64 {
        self.family(name).values().sum()
    }

    /// Panics if a counter is less than it was.
    fn only_grew_since(&self, before: &Scrape) {
        for (name, value) in &before.samples {
            let family = name.split('{').next().unwrap();
            if let (true, Some(now)) = (family.ends_with("_total"), self.samples.get(name)) {
                assert!(now >= value, "{name} fell from {value} to {now}");
            }
        }
    }
}

fn is_name(name: &str) -> bool {
    name.bytes()
        .all(|it| it.is_ascii_lowercase() || it == b'_' || it.is_ascii_digit())
}

async fn scrape(router: &axum::Router) -> Scrape {
    let answer = get(router, "/metrics").await;
    let media = answer.headers["content-type"].to_str().unwrap();
    assert!(media.starts_with("application/openmetrics-text; version=1.0.0"));
    Scrape::of(answer.text())
}

#[tokio::test]
async fn figures_of_the_store_and_of_nodes_are_those_of_stats() {
    let host = Host::start().await;
    host.hint(AWAY, &["a", "bb"]).await;
    host.hint(WELL, &["ccc"]).await;
    host.with_letter("poison").await;
    host.until(|it| {
        it.nodes
            .iter()
            .any(|it| it.node == WELL && it.delivered.hints == 1)
    })
    .await;
    host.until(|it| it.nodes.iter().any(|it| it.node == AWAY && it.failures > 0))
        .await;
    let router = host.router(Settings {
        node_names: Some(Arc::new(|node| {
            (node == AWAY).then(|| "a \"b\" \\ c\nd".to_owned())
        })),
        ..Settings::default()
    });
    host.handoff.pause_all(Pause::UntilRestart).await.unwrap();
    let text = get(&router, "/metrics").await;
    assert!(
        text.text()
            .contains("node_name{node=\"2\",name=\"a \\\"b\\\" \\\\ c\\nd\"} 1\n")
    );
    let unnamed = host.router(Settings::default());
    let before = host.handoff.stats().store;
    let (seen, stats) = (scrape(&unnamed).await, host.handoff.stats());
    // The store may do something meanwhile.
    let is_between = |name: &str, before: u64, after: u64| {
        let seen = seen.value(name);
        assert!(
            before as f64 <= seen && seen <= after as f64,
            "{name} {seen}"
        );
    };
    println!(
        "{} families, {} samples",
        seen.types.len(),
        seen.samples.len()
    );
    assert_eq!(seen.value("up"), 1.0);
    assert_eq!(seen.value("health{state=\"serving\"}"), 1.0);
    assert_eq!(seen.sum("health"), 1.0);
    assert_eq!(seen.value("paused_all"), 1.0);
    assert_eq!(seen.value("pending_hints"), 2.0);
    assert_eq!(seen.value("pending_bytes"), 3.0);
    assert_eq!(seen.value("node_pending_bytes{node=\"2\"}"), 3.0);
    assert_eq!(seen.value("node_state{node=\"2\",state=\"paused\"}"), 1.0);
    assert!(seen.value("node_oldest_age_seconds{node=\"2\"}") < 600.0);
    assert_eq!(seen.value("node_delivered_hints_total{node=\"3\"}"), 1.0);
    assert_eq!(seen.value("node_dead_letters{node=\"4\"}"), 1.0);
    assert_eq!(
        seen.value("node_dead_lettered_hints_total{node=\"4\"}"),
        1.0
    );
    assert!(seen.value("node_send_failures_total{node=\"2\"}") > 0.0);
    assert_eq!(seen.value("enqueued_hints_total"), 4.0);
    is_between("fsyncs_total", before.fsyncs, stats.store.fsyncs);
    is_between("log_bytes", before.log_bytes, stats.store.log_bytes);
    assert!(seen.value("free_disk_bytes") > 0.0);
    let appends = seen.value("append_seconds_count");
    assert_eq!(appends, stats.store.append_times.count as f64);
    assert_eq!(seen.value("append_seconds_bucket{le=\"+Inf\"}"), appends);
    assert!(seen.value("append_seconds_bucket{le=\"67.108864\"}") <= appends);
    assert!(seen.value("append_seconds_sum") > 0.0);
    assert!(seen.value("group_seconds_count") >= 1.0 && seen.value("send_seconds_count") >= 1.0);
    // Each reason is there, also one that took nothing yet.
    let reasons = hinted_handoff::LossReason::ALL.len();
    assert_eq!(seen.family("lost_hints_total").len(), reasons);
    assert_eq!(seen.value("lost_hints_total{reason=\"expired\"}"), 0.0);
    assert_eq!(seen.value("refused_hints_total{reason=\"full\"}"), 0.0);
    assert_eq!(seen.family("writes_total").len(), 6);
    assert_eq!(seen.sum("nodes"), 3.0);
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_rest_makes_up_the_sums_and_its_counts_only_grow() {
    let host = Host::start().await;
    let limited = host.router(Settings {
        metrics_nodes: 3,
        ..Settings::default()
    });
    let whole = host.router(Settings::default());
    let seed: u64 = std::env::var("HH_SEED")
        .ok()
        .and_then(|it| it.parse().ok())
        .unwrap_or(1);
    println!("HH_SEED={seed}");
    let mut random = seed;
    let mut next = |below: u64| {
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (random >> 33) % below
    };
    host.handoff.pause_all(Pause::UntilRestart).await.unwrap();
    for node in 10..20 {
        host.hint(NodeId(node), &["first"]).await;
    }
    let (mut before, mut all_before) = (scrape(&limited).await, scrape(&whole).await);
    assert_eq!(before.sum("node_enqueued_hints_total"), 10.0);
    assert_eq!(before.family("node_pending_hints").len(), 4);
    for _ in 0..40 {
        // Other nodes become the deepest ones, and some hints leave.
        for _ in 0..next(6) {
            host.hint(NodeId(10 + next(10)), &["more"]).await;
        }
        if next(4) == 0 {
            let node = NodeId(10 + next(10));
            if host.handoff.remove_node(node).await.is_ok() {
                host.hint(node, &["anew"]).await;
            }
        }
        let (now, all) = (scrape(&limited).await, scrape(&whole).await);
        now.only_grew_since(&before);
        all.only_grew_since(&all_before);
        for gauge in [
            "node_pending_hints",
            "node_pending_bytes",
            "node_dead_letters",
        ] {
            assert_eq!(now.sum(gauge), all.sum(gauge), "{gauge}");
        }
        assert_eq!(now.sum("node_pending_hints"), now.value("pending_hints"));
        let deepest: BTreeSet<&str> = now.family("node_pending_hints").into_keys().collect();
        assert!(deepest.contains("node=\"rest\"") && deepest.len() == 4);
        (before, all_before) = (now, all);
    }
    host.handoff.shutdown().await.unwrap();
}

/// Whoever has samples of its own by then: every hint is counted in one counter, and stays there.
#[tokio::test]
async fn what_is_counted_is_counted_once() {
    let host = Host::start().await;
    let limited = host.router(Settings {
        metrics_nodes: 2,
        ..Settings::default()
    });
    host.handoff.pause_all(Pause::UntilRestart).await.unwrap();
    for node in 10..16 {
        host.hint(NodeId(node), &["first"]).await;
    }
    // Each counter as it was last seen, as a database of such samples keeps it.
    let mut known: BTreeMap<String, f64> = BTreeMap::new();
    for round in 0..24u64 {
        // Another node becomes the deepest one each time.
        let more = vec!["a"; round as usize + 1];
        host.hint(NodeId(10 + round % 6), &more).await;
        let now = scrape(&limited).await;
        for (label, value) in now.family("node_enqueued_hints_total") {
            known.insert(label.to_owned(), value);
        }
        let counted: f64 = known.values().sum();
        assert_eq!(counted, now.value("enqueued_hints_total"), "round {round}");
    }
    assert_eq!(known.len(), 7, "every node was among the deepest once");
    host.handoff.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_thousand_nodes_are_less_than_200_kb() {
    let host = Host::start().await;
    host.handoff.pause_all(Pause::UntilRestart).await.unwrap();
    let writes = (0..1_000u64).map(|node| {
        let handoff = host.handoff.clone();
        tokio::spawn(async move {
            let points = bytes::Bytes::from_static(b"cpu,host=a usage=0.64");
            handoff
                .write_shard(NodeId(1_000_000 + node), SHARD, &points)
                .await
        })
    });
    for written in writes.collect::<Vec<_>>() {
        written.await.unwrap().unwrap();
    }
    let router = host.router(Settings {
        node_names: Some(Arc::new(|node| Some(format!("replica-{node}.example.net")))),
        ..Settings::default()
    });
    get(&router, "/metrics").await;
    let began = Instant::now();
    const SCRAPES: u32 = 20;
    let mut bytes = 0;
    for _ in 0..SCRAPES {
        bytes = get(&router, "/metrics").await.body.len();
    }
    println!("{bytes} bytes, {:?} a scrape", began.elapsed() / SCRAPES);
    assert!(bytes < 200_000, "{bytes} bytes");
    let seen = Scrape::of(get(&router, "/metrics").await.text());
    assert_eq!(seen.sum("node_pending_hints"), 1_000.0);
    host.handoff.shutdown().await.unwrap();
}
