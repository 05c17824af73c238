//! Asks a host that runs, by the socket that it serves its admin interface on.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{
    net::UnixStream,
    time::{Instant, timeout, timeout_at},
};

use crate::failure::Failure;

/// More than any answer has, but for a payload of the largest size in base64.
const ANSWER_BYTES: usize = 128 * 1024 * 1024;
/// What a wait on the other side may take beyond its own time.
const BEYOND_WAIT: Duration = Duration::from_secs(15);
/// What a host may take for an import, or for discarding hints or giving them away: 60 s until the
/// body is there, 300 s for the work, 30 s until it gives that up; and some to say so.
pub const LONG_WORK: Duration = Duration::from_secs(420);
/// What a stream may be silent for beyond the time of an answer: a host says something each 15 s,
/// if only that it is there.
const SILENCE: Duration = Duration::from_secs(30);
/// No wait is longer: clocks end somewhere.
const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Where the host is, and how long it may take.
#[derive(Debug, Clone, Args)]
pub struct Host {
    /// The socket of the host.
    #[arg(long, env = "HH_SOCKET", value_name = "PATH")]
    pub socket: PathBuf,
    #[command(flatten)]
    pub patience: Patience,
}

/// How long is waited for an answer.
#[derive(Debug, Clone, Args)]
pub struct Patience {
    /// How long an answer may take.
    #[arg(long, default_value = "10s", value_name = "DURATION")]
    pub answer_within: humantime::Duration,
}

/// The same where a store that nobody has open can be named instead.
#[derive(Debug, Clone, Args)]
pub struct HostIfAny {
    /// The socket of a host that runs; else name a store's directory.
    #[arg(long, env = "HH_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    #[command(flatten)]
    pub patience: Patience,
}

impl HostIfAny {
    /// The host, where no directory was named.
    pub fn host(&self) -> Result<Host, Failure> {
        self.host_or(
            "name the directory of a store that nobody has open, or the --socket of a host",
        )
    }

    /// The host; if no socket was named, what to do about that.
    pub fn host_or(&self, missing: &str) -> Result<Host, Failure> {
        let socket = self.socket.clone();
        let socket = socket.ok_or_else(|| Failure::Usage(missing.to_owned()))?;
        let patience = self.patience.clone();
        Ok(Host { socket, patience })
    }
}

/// A host, on a runtime of this thread.
pub struct Client {
    host: Host,
    silence: Duration,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    pub fn new(host: &Host) -> Result<Client, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Ok(Client {
            host: host.clone(),
            silence: SILENCE,
            runtime: runtime.map_err(|source| Failure::file("start", "a runtime", source))?,
        })
    }

    /// Looks at something.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::GET, path, None, Duration::ZERO)
    }

    /// Has something done.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: Value) -> Result<T, Failure> {
        self.ask(Method::POST, path, Some(body), Duration::ZERO)
    }

    /// Has something done for which the host waits so long.
    pub fn post_and_wait<T: DeserializeOwned>(
        &self,
        path: &str,
        body: Value,
        wait: Duration,
    ) -> Result<T, Failure> {
        self.ask(
            Method::POST,
            path,
            Some(body),
            wait.saturating_add(BEYOND_WAIT),
        )
    }

    /// A text.
    pub fn text(&self, path: &str) -> Result<String, Failure> {
        let body = self.answer(Method::GET, path, None, Duration::ZERO)?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        wait: Duration,
    ) -> Result<T, Failure> {
        let body = self.answer(method, path, body, wait)?;
        serde_json::from_slice(&body).map_err(|error| Failure::Answer {
            path: path.to_owned(),
            why: error.to_string(),
        })
    }

    fn answer(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        wait: Duration,
    ) -> Result<Vec<u8>, Failure> {
        let within = self.within(wait);
        let by = Instant::now() + within;
        self.runtime.block_on(async {
            let answered = async {
                let response = self.send(method, path, body).await?;
                let status = response.status();
                let body = Limited::new(response.into_body(), ANSWER_BYTES)
                    .collect()
                    .await;
                let body = body.map_err(|error| self.broken(path, &*error))?;
                Ok::<_, Failure>((status, body.to_bytes().to_vec()))
            };
            let (status, body) = match timeout_at(by, answered).await {
                Ok(answered) => answered?,
                Err(_) => return Err(self.hangs(within)),
            };
            match is_answer(status, path) {
                true => Ok(body),
                false => Err(refused(status, &body)),
            }
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.host.socket).await;
        let stream = stream.map_err(|source| Failure::Unreachable {
            socket: self.host.socket.clone(),
            source,
        })?;
        let broken = |error: hyper::Error| self.broken(path, &error);
        let connected = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = connected.map_err(broken)?;
        // It ends with the answer, and says by that what went wrong.
        tokio::spawn(async move { drop(connection.await) });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .header("x-hinted-handoff", "1");
        let body = body.map_or(Vec::new(), |body| body.to_string().into_bytes());
        let request = request.body(Full::new(bytes::Bytes::from(body)));
        let request = request.map_err(|error| self.broken(path, &error))?;
        sender.send_request(request).await.map_err(broken)
    }

    /// Calls `each` with every line of a stream, until that ends or `each` fails. A host that is
    /// silent for too long hangs.
    pub fn lines(
        &self,
        path: &str,
        mut each: impl FnMut(&str) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let within = self.within(Duration::ZERO);
        let by = Instant::now() + within;
        self.runtime.block_on(async {
            let sent = timeout_at(by, self.send(Method::GET, path, None)).await;
            let response = sent.map_err(|_| self.hangs(within))??;
            let status = response.status();
            let mut body = response.into_body();
            if !status.is_success() {
                let problem = Limited::new(body, ANSWER_BYTES).collect();
                let problem = timeout_at(by, problem).await;
                let problem = problem.map_err(|_| self.hangs(within))?;
                let problem = problem.map_err(|error| self.broken(path, &*error))?;
                return Err(refused(status, &problem.to_bytes()));
            }
            let (mut line, silence) = (Vec::new(), self.within(self.silence));
            loop {
                let frame = timeout(silence, body.frame()).await;
                let Some(frame) = frame.map_err(|_| self.hangs(silence))? else {
                    break;
                };
                let frame = frame.map_err(|error| self.broken(path, &error))?;
                for byte in frame.into_data().unwrap_or_default() {
                    match byte {
                        b'\n' => each(&String::from_utf8_lossy(&std::mem::take(&mut line)))?,
                        byte if line.len() < ANSWER_BYTES => line.push(byte),
                        _ => {}
                    }
                }
            }
            Ok(())
        })
    }

    /// How long an answer may take for which the host waits so long.
    fn within(&self, wait: Duration) -> Duration {
        let patience = *self.host.patience.answer_within;
        patience.saturating_add(wait).min(WAIT_MAX)
    }

    fn hangs(&self, within: Duration) -> Failure {
        Failure::Hangs {
            socket: self.host.socket.clone(),
            within: within.into(),
        }
    }

    fn broken(&self, path: &str, error: &dyn std::error::Error) -> Failure {
        Failure::Answer {
            path: path.to_owned(),
            why: error.to_string(),
        }
    }
}

/// A handoff that is not well is an answer to how it is.
fn is_answer(status: StatusCode, path: &str) -> bool {
    status.is_success() || (status == StatusCode::SERVICE_UNAVAILABLE && path == "/v1/health")
}

/// A problem in JSON, as the host says it.
fn refused(status: StatusCode, body: &[u8]) -> Failure {
    let problem: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| problem.get(name).and_then(Value::as_str);
    let detail = text("detail").or(text("title"));
    let begin = String::from_utf8_lossy(body.get(..body.len().min(200)).unwrap_or_default());
    Failure::Refused {
        status: status.as_u16(),
        kind: text("type").unwrap_or_default().to_owned(),
        detail: detail.map_or(begin.into_owned(), str::to_owned),
        stored: problem
            .get("stored")
            .and_then(|ids| Vec::deserialize(ids).ok())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixListener,
    };

    use super::*;

    fn client(socket: PathBuf, answer_within: Duration) -> Client {
        let answer_within = answer_within.into();
        let patience = Patience { answer_within };
        Client::new(&Host { socket, patience }).unwrap()
    }

    #[test]
    fn a_wait_takes_the_time_of_an_answer_besides_and_no_clock_overflows() {
        let client = client(PathBuf::new(), Duration::from_secs(10));
        let second = Duration::from_secs(1);
        assert_eq!(client.within(second), Duration::from_secs(11));
        assert_eq!(client.within(Duration::MAX), WAIT_MAX);
        let told = client.hangs(client.within(BEYOND_WAIT)).to_string();
        assert!(told.contains("within 25s;"), "{told}");
    }

    #[test]
    fn a_stream_that_falls_silent_hangs() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("hh.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let host = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            assert!(connection.read(&mut [0; 4096]).unwrap() > 0);
            let event = "10\r\ndata: something\n\r\n";
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            write!(connection, "{head}{event}").unwrap();
            connection
        });
        let client = Client {
            silence: Duration::ZERO,
            ..client(socket, Duration::from_secs(2))
        };
        let mut lines = Vec::new();
        let ended = client.lines("/v1/events", |line| {
            lines.push(line.to_owned());
            Ok(())
        });
        assert_eq!(lines, ["data: something"]);
        assert!(matches!(ended, Err(Failure::Hangs { .. })), "{ended:?}");
        drop(host.join().unwrap());
    }
}
