//! The file of influxdb-relay, as its documentation names the settings.

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    #[serde(default)]
    pub http: Vec<Http>,
    #[serde(default)]
    pub udp: Vec<Udp>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Http {
    #[serde(default)]
    pub name: String,
    pub bind_addr: String,
    #[serde(default)]
    pub ssl_combined_pem: String,
    #[serde(default)]
    pub default_retention_policy: String,
    #[serde(default)]
    pub output: Vec<HttpOutput>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct HttpOutput {
    #[serde(default)]
    pub name: String,
    pub location: String,
    #[serde(default)]
    pub timeout: String,
    #[serde(default)]
    pub buffer_size_mb: u64,
    /// It has no counterpart that one would set: replay sends what has piled up.
    #[serde(default, rename = "max-batch-kb")]
    pub _max_batch_kb: u64,
    #[serde(default)]
    pub max_delay_interval: String,
    #[serde(default)]
    pub skip_tls_verification: bool,
    #[serde(default)]
    pub http_user: String,
    #[serde(default)]
    pub http_pass: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Udp {
    #[serde(default)]
    pub name: String,
    pub bind_addr: String,
    #[serde(default)]
    pub precision: String,
    #[serde(default)]
    pub read_buffer: u64,
    #[serde(default)]
    pub output: Vec<UdpOutput>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UdpOutput {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub location: String,
    #[serde(default = "mtu")]
    pub mtu: u64,
}

fn mtu() -> u64 {
    1024
}
