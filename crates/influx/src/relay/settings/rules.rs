//! What settings must keep to, beyond what each is by itself.

use std::{collections::BTreeSet, time::Duration};

use http::Uri;

use super::{
    MIB, Settings, SettingsError,
    place::{Places, Step, Step::Index, Step::Key},
};

/// The longest wait that can be set.
const DAY: Duration = Duration::from_secs(86_400);

/// A rule that a setting breaks.
#[derive(Debug)]
pub struct Broken {
    way: Vec<Step>,
    problem: String,
}

impl Broken {
    fn new(way: impl Into<Vec<Step>>, problem: impl Into<String>) -> Option<Broken> {
        Some(Broken {
            way: way.into(),
            problem: problem.into(),
        })
    }

    pub fn at(self, places: &Places<'_>) -> SettingsError {
        SettingsError {
            line: places.line(&self.way),
            problem: self.problem,
            source: None,
        }
    }
}

/// Whether it is one of a server; the writer looks closer.
fn is_url(url: &str) -> bool {
    let url = url.parse::<Uri>();
    url.is_ok_and(|url| {
        let is_http = matches!(url.scheme_str(), Some("http" | "https"));
        is_http && url.host().is_some_and(|host| !host.is_empty())
    })
}

impl Settings {
    /// The first rule that is broken.
    pub(super) fn broken_rule(&self) -> Option<Broken> {
        self.broken_nodes()
            .or_else(|| self.broken_http())
            .or_else(|| self.broken_users())
            .or_else(|| self.broken_udp())
            .or_else(|| self.broken_rest())
    }

    fn broken_nodes(&self) -> Option<Broken> {
        let (mut ids, mut urls) = (BTreeSet::new(), BTreeSet::new());
        if self.nodes.is_empty() {
            return Broken::new([], "there is no [[nodes]]: name at least one server");
        }
        for (index, node) in self.nodes.iter().enumerate() {
            let at = |key| [Key("nodes"), Index(index), Key(key)];
            if !ids.insert(node.id) {
                let problem = format!("two nodes have the id {}: give each its own", node.id);
                return Broken::new(at("id"), problem);
            }
            if !is_url(&node.url) {
                let problem = "this is no url: give http://host:8086, or https://";
                return Broken::new(at("url"), problem);
            }
            if !urls.insert(node.url.trim_end_matches('/').to_ascii_lowercase()) {
                let problem = "two nodes have this url: the same server would get all twice";
                return Broken::new(at("url"), problem);
            }
            if node.password.is_some() && node.password_file.is_some() {
                let problem = "give either password or password_file";
                return Broken::new(at("password_file"), problem);
            }
            let has_password = node.password.is_some() || node.password_file.is_some();
            if node.username.is_some() != has_password {
                let problem = "give username and password (or password_file), or neither";
                return Broken::new(at("username"), problem);
            }
            if !(Duration::from_millis(1)..=DAY).contains(&node.timeout) {
                return Broken::new(at("timeout"), "timeout: between 1ms and 1day");
            }
        }
        None
    }

    fn broken_http(&self) -> Option<Broken> {
        let http = &self.http;
        let times = Duration::from_millis(10)..=DAY;
        let rules = [
            (
                "max_body_bytes",
                (1024..=1024 * MIB).contains(&http.max_body_bytes),
                "between 1KiB and 1GiB",
            ),
            (
                "max_bytes_under_way",
                (http.max_body_bytes..=1024 * MIB).contains(&http.max_bytes_under_way),
                "between max_body_bytes and 1GiB",
            ),
            (
                "max_connections",
                (1..=65_536).contains(&http.max_connections),
                "between 1 and 65536",
            ),
            (
                "head_timeout",
                times.contains(&http.head_timeout),
                "between 10ms and 1day",
            ),
            (
                "body_timeout",
                times.contains(&http.body_timeout),
                "between 10ms and 1day",
            ),
            (
                "database",
                http.database.as_deref() != Some(""),
                "name one, or leave it out",
            ),
        ];
        let broken = rules.into_iter().find(|(_, is_kept, _)| !is_kept)?;
        let (key, _, rule) = broken;
        Broken::new([Key("http"), Key(key)], format!("{key}: {rule}"))
    }

    fn broken_users(&self) -> Option<Broken> {
        let mut names = BTreeSet::new();
        for (index, user) in self.users.iter().enumerate() {
            let at = |key| [Key("users"), Index(index), Key(key)];
            if user.name.is_empty() || user.name.contains(':') {
                let problem = "a name has a letter at least, and no colon, which ends it in HTTP";
                return Broken::new(at("name"), problem);
            }
            if !names.insert(user.name.as_str()) {
                let problem = format!("two users are called {:?}", user.name);
                return Broken::new(at("name"), problem);
            }
            if user.password.is_some() == user.password_file.is_some() {
                let problem = "give either password or password_file";
                return Broken::new(at("password"), problem);
            }
            if user
                .password
                .as_ref()
                .is_some_and(|it| it.as_str().is_empty())
            {
                return Broken::new(at("password"), "the password is empty");
            }
        }
        None
    }

    fn broken_udp(&self) -> Option<Broken> {
        let mut addresses = BTreeSet::new();
        for (index, udp) in self.udp.iter().enumerate() {
            let at = |key| [Key("udp"), Index(index), Key(key)];
            if udp.database.is_empty() {
                return Broken::new(at("database"), "database: name one");
            }
            if !(MIB / 16..=64 * MIB).contains(&udp.batch_bytes) {
                return Broken::new(at("batch_bytes"), "batch_bytes: between 64KiB and 64MiB");
            }
            if !(Duration::from_millis(1)..=DAY).contains(&udp.batch_time) {
                return Broken::new(at("batch_time"), "batch_time: between 1ms and 1day");
            }
            if usize::try_from(udp.read_buffer).is_err() {
                return Broken::new(at("read_buffer"), "read_buffer: no socket has so much");
            }
            if udp.listen.port() > 0 && !addresses.insert(udp.listen) {
                return Broken::new(at("listen"), "two [[udp]] listen at this address");
            }
        }
        None
    }

    fn broken_rest(&self) -> Option<Broken> {
        if self.stop_timeout > DAY {
            return Broken::new([Key("stop_timeout")], "stop_timeout: at most 1day");
        }
        if self.writer.max_body_bytes == 0 {
            let at = [Key("writer"), Key("max_body_bytes")];
            return Broken::new(at, "max_body_bytes: at least 1");
        }
        if let Err(error) = self.queue.validate() {
            let at = [Key("queue"), Key(error.field)];
            return Broken::new(at, error.to_string());
        }
        let address = self.admin.listen?;
        if address.ip().is_loopback() {
            return None;
        }
        let problem = format!(
            "{address} can be reached from elsewhere: give a loopback address, which a proxy with \
             a login of its own may stand before"
        );
        Broken::new([Key("admin"), Key("listen")], problem)
    }
}
