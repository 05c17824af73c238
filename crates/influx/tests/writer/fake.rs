//! A server that answers as it is told, to the byte, and remembers what it was sent.

use std::{
    io::Read,
    sync::{Arc, Mutex},
};

use flate2::read::GzDecoder;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// A request.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Which connection it came on, from 0.
    pub connection: usize,
    /// `POST /write?db=..`.
    pub line: String,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
    /// As it came.
    pub raw: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The lines.
    pub fn body(&self) -> String {
        match self.header("content-encoding") {
            Some("gzip") => {
                let mut text = String::new();
                GzDecoder::new(&self.raw[..])
                    .read_to_string(&mut text)
                    .unwrap();
                text
            }
            _ => String::from_utf8(self.raw.clone()).unwrap(),
        }
    }
}

/// What to do about a request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Send these bytes.
    Bytes(Vec<u8>),
    /// Send these bytes and close the connection.
    BytesAndClose(Vec<u8>),
    /// Send these bytes, and nothing more.
    BytesAndSilence(Vec<u8>),
}

impl Reply {
    /// A whole answer.
    pub fn new(status: u16, headers: &str, body: &str) -> Reply {
        let length = body.len();
        let head = format!("HTTP/1.1 {status} It\r\nContent-Length: {length}\r\n{headers}\r\n");
        Reply::Bytes(format!("{head}{body}").into_bytes())
    }

    /// 204.
    pub fn taken() -> Reply {
        Reply::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())
    }

    /// As influxd tells an error.
    pub fn error(status: u16, text: &str) -> Reply {
        let body = serde_json::json!({ "error": text }).to_string();
        Reply::new(status, "Content-Type: application/json\r\n", &body)
    }
}

type Script = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

/// It stops when it is dropped.
pub struct Fake {
    pub port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    _tasks: JoinSet<()>,
}

impl Fake {
    pub async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Fake {
        Fake::start_with(None, script).await
    }

    /// The first request is given the first reply, and so on; those after the last one are taken.
    pub async fn in_turn(replies: impl IntoIterator<Item = Reply>) -> Fake {
        let replies = Mutex::new(replies.into_iter().collect::<Vec<_>>().into_iter());
        Fake::start(move |_| replies.lock().unwrap().next().unwrap_or_else(Reply::taken)).await
    }

    /// One that takes all, at a port that was another's.
    #[allow(dead_code)]
    pub async fn at(port: u16) -> Fake {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        Fake::on(listener, None, |_| Reply::taken())
    }

    pub async fn start_with(
        tls: Option<TlsAcceptor>,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Fake::on(listener, tls, script)
    }

    fn on(
        listener: TcpListener,
        tls: Option<TlsAcceptor>,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Fake {
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        tasks.spawn(listen(listener, tls, Arc::new(script), Arc::clone(&seen)));
        Fake {
            port,
            seen,
            _tasks: tasks,
        }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The lines of all requests.
    pub fn bodies(&self) -> Vec<String> {
        self.seen().iter().map(Seen::body).collect()
    }
}

async fn listen(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    script: Script,
    seen: Arc<Mutex<Vec<Seen>>>,
) {
    let mut connections = JoinSet::new();
    for number in 0.. {
        let (stream, _) = listener.accept().await.unwrap();
        let (tls, script, seen) = (tls.clone(), Arc::clone(&script), Arc::clone(&seen));
        connections.spawn(async move {
            // The client may leave at any time.
            let _ = match tls {
                None => converse::<TcpStream>(stream, number, &script, &seen).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => converse(stream, number, &script, &seen).await,
                    Err(_) => Ok(()),
                },
            };
        });
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    connection: usize,
    script: &Script,
    seen: &Mutex<Vec<Seen>>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let headers = lines.split_off(1);
        let headers = headers.iter().map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_lowercase(), value.trim().to_owned())
        });
        let mut request = Seen {
            connection,
            line: lines.remove(0),
            headers: headers.collect(),
            raw: Vec::new(),
        };
        let length = request
            .header("content-length")
            .map_or(0, |it| it.parse().unwrap());
        request.raw = vec![0; length];
        stream.read_exact(&mut request.raw).await?;
        let reply = script(&request);
        seen.lock().unwrap().push(request);
        match reply {
            Reply::Bytes(bytes) => stream.write_all(&bytes).await?,
            Reply::BytesAndClose(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Reply::BytesAndSilence(bytes) => {
                stream.write_all(&bytes).await?;
                stream.flush().await?;
                return std::future::pending().await;
            }
        }
        stream.flush().await?;
    }
}
