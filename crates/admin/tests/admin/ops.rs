//! Alerts and the dashboard name metrics that are there.

use std::{collections::BTreeSet, fs, path::Path};

use hinted_handoff_admin::Settings;

use crate::common::{AWAY, Host, get};

/// All that begins like one of ours, as alerts and panels name it.
fn named(file: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../ops")
        .join(file);
    let text = fs::read_to_string(path).unwrap();
    let words = text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    let ours = words.filter(|word| word.starts_with("hinted_handoff_"));
    ours.map(str::to_owned).collect()
}

#[tokio::test]
async fn every_metric_of_the_alerts_and_of_the_dashboard_exists() {
    let host = Host::start().await;
    host.hint(AWAY, &["a"]).await;
    host.until(|it| it.nodes.iter().any(|it| it.oldest_age.is_some()))
        .await;
    let router = host.router(Settings::default());
    let text = get(&router, "/metrics").await.text().to_owned();
    // A family without a sample yet has its type all the same.
    let families: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    for file in ["alerts.yml", "dashboard.json"] {
        let named = named(file);
        assert!(named.len() > 10, "{file}: {named:?}");
        for metric in named {
            let bare = ["_total", "_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| metric.strip_suffix(suffix))
                .unwrap_or(&metric);
            assert!(
                families.contains(bare),
                "{file} names {metric}, which is not there"
            );
        }
    }
}
