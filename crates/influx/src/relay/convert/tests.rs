use std::time::Duration;

use super::*;
use crate::{Precision, relay::Settings};

/// Of the shape of their `sample.toml`.
const SAMPLE: &str = r#"
[[http]]
name = "example-http"
bind-addr = "127.0.0.1:9096"
output = [
    { name="local1", location = "http://127.0.0.1:8086/write" },
    { name="local2", location = "http://127.0.0.1:7086/write", http-user="test", http-pass="pa\"ss" },
]

[[udp]]
name = "example-udp"
bind-addr = "127.0.0.1:9096"
read-buffer = 0 # default
output = [
    { name="local1", location="127.0.0.1:8089", mtu=512 },
    { name="local2", location="127.0.0.1:7089", mtu=1024 },
]
"#;

/// Of the shape of their `sample_buffered.toml`, with all that there is besides.
const BUFFERED: &str = r#"
[[http]]
name = "example-http"
bind-addr = ":9096"
ssl-combined-pem = "/etc/ssl/influxdb-relay.pem"
default-retention-policy = "two weeks"

[[http.output]]
name = "local1"
location = "https://db-1:8086/write?x=1"
timeout = "5s"
buffer-size-mb = 100
max-batch-kb = 50
max-delay-interval = "5s"
skip-tls-verification = true

[[http.output]]
name = "local2"
location = "https://db-2:8086/prefix/write"
buffer-size-mb = 200

[[http]]
name = "another"
bind-addr = "127.0.0.1:9098"
output = [{ name="c", location="http://127.0.0.1:1/write" }]

[[udp]]
bind-addr = "localhost:9096"
precision = "s"
read-buffer = 8388608
"#;

fn converted(text: &str) -> (String, Settings) {
    let converted = convert(text).unwrap();
    let settings = Settings::from_toml(&converted);
    let settings = settings.unwrap_or_else(|error| panic!("{error}: {converted}"));
    (converted, settings)
}

#[test]
fn their_sample_becomes_settings_that_do_the_same() {
    let (text, settings) = converted(SAMPLE);
    assert_eq!(settings.http.listen.to_string(), "127.0.0.1:9096");
    let nodes: Vec<_> = settings
        .nodes
        .iter()
        .map(|it| (it.id, it.url.as_str()))
        .collect();
    assert_eq!(
        nodes,
        [(1, "http://127.0.0.1:8086"), (2, "http://127.0.0.1:7086")]
    );
    assert_eq!(settings.nodes[1].username.as_deref(), Some("test"));
    assert_eq!(
        settings.nodes[1].password.as_ref().unwrap().as_str(),
        "pa\"ss"
    );
    assert_eq!(settings.udp[0].listen.to_string(), "127.0.0.1:9096");
    assert!(text.contains("TO DO: the database"), "{text}");
}

#[test]
fn what_has_no_counterpart_is_told() {
    let (text, settings) = converted(BUFFERED);
    assert_eq!(settings.http.listen.to_string(), "0.0.0.0:9096");
    assert_eq!(settings.http.retention_policy.as_deref(), Some("two weeks"));
    let tls = settings.http.tls.unwrap();
    assert_eq!(tls.cert.to_str(), Some("/etc/ssl/influxdb-relay.pem"));
    assert_eq!(tls.cert, tls.key);
    assert_eq!(settings.nodes[0].url, "https://db-1:8086");
    assert_eq!(settings.nodes[0].timeout, Duration::from_secs(5));
    assert_eq!(settings.nodes[1].url, "https://db-2:8086/prefix");
    assert_eq!(settings.queue.retry_max_interval, Duration::from_secs(5));
    assert_eq!(settings.udp[0].precision, Precision::Seconds);
    assert_eq!(settings.udp[0].read_buffer, 8_388_608);
    for told in [
        "NOT CONVERTED: [[http]] \"another\"",
        "NOT CONVERTED: skip-tls-verification",
        "a buffer of 200 MB",
    ] {
        assert!(text.contains(told), "{told}: {text}");
    }
}

#[test]
fn what_is_no_such_file_is_told_with_its_line() {
    let error = |text: &str| convert(text).unwrap_err().to_string();
    assert!(error("[[http]]\nbind-addr = 1\n").starts_with("line 2: "));
    assert!(error("[[nodes]]\n").starts_with("line 1: "));
    assert!(error("").starts_with("there is no [[http]]"));
}
