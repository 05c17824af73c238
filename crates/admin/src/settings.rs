//! What a host says of its admin interface.

use std::{
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use hinted_handoff::NodeId;

/// What people call a node.
pub type NodeNames = Arc<dyn Fn(NodeId) -> Option<String> + Send + Sync>;

/// Makes JSON of a payload, by its format and its bytes; a text as `Value::String`.
pub type Decoder = Arc<
    dyn Fn(u16, &[u8]) -> Result<serde_json::Value, Box<dyn Error + Send + Sync>> + Send + Sync,
>;

/// Nodes with samples of their own in the metrics, by default.
const METRICS_NODES: usize = 200;

/// Settings of the router.
///
/// ```
/// use hinted_handoff_admin::Settings;
/// use std::sync::Arc;
///
/// let settings = Settings {
///     read_only: false,
///     node_names: Some(Arc::new(|node| Some(format!("replica-{node}")))),
///     decoder: Some(Arc::new(|_format, bytes| Ok(String::from_utf8(bytes.to_vec())?.into()))),
///     ..Settings::default()
/// };
/// # assert!(!settings.read_only);
/// ```
#[derive(Clone)]
pub struct Settings {
    /// Refuses every request that changes something, and leaves the buttons of the page out.
    /// Default: `true`.
    pub read_only: bool,
    /// The name of this host, shown on the page. Default: none.
    pub title: Option<String>,
    /// What people call a node: beside its number on the page, as `name` in JSON and in metrics. A
    /// closure that panics has no name. Default: none.
    pub node_names: Option<NodeNames>,
    /// Shows payloads of hints and dead letters. A closure that panics or fails has them shown as
    /// they are stored, with the error. Default: none.
    pub decoder: Option<Decoder>,
    /// Nodes with samples of their own in `/metrics`: those with most pending hints. All others are
    /// summed up as node `rest`. Default: 200; 0 has all summed up.
    pub metrics_nodes: usize,
    /// Which names of this host are believed in the `Host` header. [`serve`](crate::serve) sets it
    /// to what it listens on, on TCP. Default: [`Hosts::Loopback`].
    pub hosts: Hosts,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            read_only: true,
            title: None,
            node_names: None,
            decoder: None,
            metrics_nodes: METRICS_NODES,
            hosts: Hosts::Loopback,
        }
    }
}

/// Names that a request may call this host by. A page from elsewhere whose name was made to lead
/// here (DNS rebinding) has another one, and is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosts {
    /// Any: where a layer of the host's own checks, or no browser comes.
    Any,
    /// `localhost`, `127.0.0.1` and `[::1]`, with any port or none.
    Loopback,
    /// These, in lower case, each with its port where that is not the scheme's own:
    /// `admin.example.net:8443`.
    These(Vec<String>),
}

impl Hosts {
    /// Whether a request for this host is answered.
    pub(crate) fn allow(&self, host: &str) -> bool {
        match self {
            Hosts::Any => true,
            Hosts::These(hosts) => hosts.iter().any(|it| it.eq_ignore_ascii_case(host)),
            Hosts::Loopback => {
                let port = |rest: &str| match rest.strip_prefix(':') {
                    Some(port) => port.parse::<u16>().is_ok(),
                    None => rest.is_empty(),
                };
                let host = host.to_ascii_lowercase();
                ["localhost", "127.0.0.1", "[::1]"]
                    .iter()
                    .filter_map(|name| host.strip_prefix(name))
                    .any(port)
            }
        }
    }
}

impl Settings {
    pub(crate) fn name(&self, node: NodeId) -> Option<String> {
        let names = self.node_names.as_ref()?;
        catch_unwind(AssertUnwindSafe(|| names(node)))
            .ok()
            .flatten()
    }

    /// What the decoder makes of a payload; `None` without one.
    pub(crate) fn decode(
        &self,
        format: u16,
        raw: &[u8],
    ) -> Option<Result<serde_json::Value, String>> {
        let decoder = self.decoder.as_ref()?;
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            decoder(format, raw).map_err(|error| error.to_string())
        }));
        Some(decoded.unwrap_or_else(|_| Err("the decoder panicked".to_owned())))
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("read_only", &self.read_only)
            .field("title", &self.title)
            .field("metrics_nodes", &self.metrics_nodes)
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_of_this_machine_are_its_own() {
        for own in ["localhost", "127.0.0.1:80", "[::1]:8080", "LocalHost:1"] {
            assert!(Hosts::Loopback.allow(own), "{own}");
        }
        for foreign in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "localhost:",
            "localhost:80:80",
            "localhost:99999",
            "[::1]x",
            "10.0.0.1:80",
        ] {
            assert!(!Hosts::Loopback.allow(foreign), "{foreign}");
        }
        let these = Hosts::These(vec!["127.0.0.1:81".to_owned()]);
        assert!(these.allow("127.0.0.1:81"));
        assert!(!these.allow("127.0.0.1:82"));
        assert!(!these.allow("127.0.0.1"));
    }

    #[test]
    fn a_host_whose_closures_panic_has_no_names_and_raw_payloads() {
        let settings = Settings {
            node_names: Some(Arc::new(|_| panic!("no name"))),
            decoder: Some(Arc::new(|_, _| panic!("no text"))),
            ..Settings::default()
        };
        assert_eq!(settings.name(NodeId(1)), None);
        assert!(settings.decode(0, b"x").unwrap().is_err());
    }
}
