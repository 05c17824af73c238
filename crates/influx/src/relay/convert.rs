//! Settings of influxdb-relay, as settings of this relay.

mod theirs;

use std::{collections::BTreeSet, fmt::Write, io};

use self::theirs::{Http, HttpOutput, Relay, Udp};
use super::settings::line_at;

/// A file of influxdb-relay that cannot be converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// It is no such file.
    #[error("line {line}: {problem}")]
    #[non_exhaustive]
    Malformed {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// There is nothing to write to.
    #[error("there is no [[http]] with an output: there is no server to write to")]
    NoServer,
    /// The file cannot be read.
    #[error("the file cannot be read")]
    Unreadable(#[from] io::Error),
}

/// The settings of `hh-relay` that do what a file of influxdb-relay says, with comments on what has
/// no counterpart.
///
/// # Errors
/// [`ConvertError`].
pub fn convert(text: &str) -> Result<String, ConvertError> {
    let relay: Relay = toml::from_str(text).map_err(|error| ConvertError::Malformed {
        line: error.span().map_or(1, |span| line_at(text, span.start)),
        problem: error.message().to_owned(),
    })?;
    let with_outputs = |http: &&Http| !http.output.is_empty();
    let first = relay.http.iter().find(with_outputs);
    let first = first.ok_or(ConvertError::NoServer)?;
    let mut out = String::new();
    // A text takes all that is written to it.
    let _ = write_all(&mut out, &relay, first);
    Ok(out)
}

fn write_all(out: &mut String, relay: &Relay, first: &Http) -> std::fmt::Result {
    writeln!(out, "# Converted from a file of influxdb-relay. Check it:")?;
    writeln!(out, "#   hh-relay --config relay.toml --check")?;
    for other in relay.http.iter().filter(|it| !std::ptr::eq(*it, first)) {
        writeln!(
            out,
            "# NOT CONVERTED: [[http]] {:?} at {:?}. One hh-relay has one address and one list of\n\
             # servers: convert it by itself, for a second hh-relay with a queue of its own.",
            other.name, other.bind_addr
        )?;
    }
    http(out, first)?;
    for udp in &relay.udp {
        self::udp(out, udp)?;
    }
    nodes(out, first)?;
    writeln!(
        out,
        "\n[queue]\n# What servers miss is kept here, on disk, and survives a restart. It replaces\n\
         # buffer-size-mb, max-batch-kb and max-delay-interval.\ndir = \"/var/lib/hh-relay\""
    )?;
    let buffers = first.output.iter().map(|it| it.buffer_size_mb).max();
    if let Some(mb) = buffers.filter(|mb| *mb > 0) {
        writeln!(
            out,
            "# There was a buffer of {mb} MB. The disk is the limit now, unless you set one:"
        )?;
        writeln!(out, "# max_bytes_per_node = \"{mb}MiB\"")?;
    }
    let delays = first.output.iter().map(|it| it.max_delay_interval.as_str());
    if let Some(delay) = delays
        .into_iter()
        .find(|it| humantime::parse_duration(it).is_ok())
    {
        writeln!(out, "retry_max_interval = {}", quoted(delay))?;
    }
    writeln!(
        out,
        "\n[admin]\n# For operators: hh VERB --socket, and a page."
    )?;
    writeln!(
        out,
        "# socket = \"/run/hh-relay/admin.sock\"\n# listen = \"127.0.0.1:9097\""
    )
}

fn http(out: &mut String, http: &Http) -> std::fmt::Result {
    writeln!(out, "\n# {:?}", http.name)?;
    writeln!(
        out,
        "[http]\nlisten = {}",
        quoted(&address(&http.bind_addr))
    )?;
    if !http.default_retention_policy.is_empty() {
        let policy = quoted(&http.default_retention_policy);
        writeln!(out, "retention_policy = {policy}")?;
    }
    if !http.ssl_combined_pem.is_empty() {
        let file = quoted(&http.ssl_combined_pem);
        writeln!(
            out,
            "\n[http.tls]\n# The same file has both.\ncert = {file}\nkey = {file}"
        )?;
    }
    Ok(())
}

fn udp(out: &mut String, udp: &Udp) -> std::fmt::Result {
    writeln!(
        out,
        "\n# {:?}. Its lines went to UDP ports of the servers:",
        udp.name
    )?;
    for output in &udp.output {
        let (name, location) = (&output.name, &output.location);
        writeln!(
            out,
            "#   {name:?} at {location:?} (mtu {} is not needed)",
            output.mtu
        )?;
    }
    writeln!(
        out,
        "# They go to /write of the [[nodes]] now, and are queued when a server is away.\n\
         [[udp]]\nlisten = {}\n\
         # TO DO: the database that [[udp]] of influxd.conf names for these ports.\n\
         database = \"udp\"",
        quoted(&address(&udp.bind_addr))
    )?;
    if !udp.precision.is_empty() {
        writeln!(out, "precision = {}", quoted(&udp.precision))?;
    }
    if udp.read_buffer > 0 {
        writeln!(out, "read_buffer = {}", udp.read_buffer)?;
    }
    Ok(())
}

fn nodes(out: &mut String, http: &Http) -> std::fmt::Result {
    let mut urls = BTreeSet::new();
    for (index, output) in http.output.iter().enumerate() {
        let url = base(&output.location);
        if !urls.insert(url) {
            writeln!(
                out,
                "\n# NOT CONVERTED: {:?} is a second way to {url:?}.",
                output.name
            )?;
            continue;
        }
        // Hints are kept by the number, so it is said and not counted.
        writeln!(
            out,
            "\n[[nodes]]\nid = {}\nurl = {}",
            index + 1,
            quoted(url)
        )?;
        node(out, output)?;
    }
    Ok(())
}

fn node(out: &mut String, output: &HttpOutput) -> std::fmt::Result {
    if !output.name.is_empty() {
        writeln!(out, "name = {}", quoted(&output.name))?;
    }
    if !output.http_user.is_empty() {
        writeln!(out, "username = {}", quoted(&output.http_user))?;
        writeln!(out, "password = {}", quoted(&output.http_pass))?;
    }
    if humantime::parse_duration(&output.timeout).is_ok() {
        writeln!(out, "timeout = {}", quoted(&output.timeout))?;
    } else if !output.timeout.is_empty() {
        writeln!(out, "# TO DO: the timeout was {:?}.", output.timeout)?;
    }
    if output.skip_tls_verification {
        writeln!(
            out,
            "# NOT CONVERTED: skip-tls-verification. Name the server's certificate instead:\n\
             # ca_file = \"/etc/hh-relay/server.crt\""
        )?;
    }
    Ok(())
}

/// A server's address without the path of its writes.
fn base(location: &str) -> &str {
    let plain = location.split('?').next().unwrap_or(location);
    let plain = plain.trim_end_matches('/');
    plain.strip_suffix("/write").unwrap_or(plain)
}

/// An address with a host.
fn address(address: &str) -> String {
    match address.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => address.replace("localhost:", "127.0.0.1:"),
    }
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

#[cfg(test)]
mod tests;
