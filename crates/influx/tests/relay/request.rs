//! Requests, to the byte.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};

#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    path: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, path: &str) -> Request {
        Request {
            method: method.to_owned(),
            path: path.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub fn get(path: &str) -> Request {
        Request::new("GET", path)
    }

    pub fn post(path: &str, body: impl AsRef<[u8]>) -> Request {
        let request = Request::new("POST", path);
        Request {
            body: body.as_ref().to_vec(),
            ..request
        }
    }

    pub fn header(mut self, line: &str) -> Request {
        self.headers.push(line.to_owned());
        self
    }

    /// With its body compressed.
    pub fn gzip(mut self) -> Request {
        self.body = gzip(&self.body);
        self.header("Content-Encoding: gzip")
    }

    pub fn bytes(&self) -> Vec<u8> {
        let Request {
            method,
            path,
            headers,
            body,
        } = self;
        let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\
             Content-Length: {length}\r\n{headers}\r\n"
        );
        [head.as_bytes(), body].concat()
    }

    pub fn send(&self, address: SocketAddr) -> Answer {
        let mut stream = connect(address);
        // It may answer before it has read all.
        let _ = stream.write_all(&self.bytes());
        Answer::read(&mut stream)
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    let patience = Some(Duration::from_secs(60));
    stream.set_read_timeout(patience).unwrap();
    stream.set_write_timeout(patience).unwrap();
    stream
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// All that comes until the end.
    pub fn read(stream: &mut impl Read) -> Answer {
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        let end = bytes.windows(4).position(|it| it == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer: {read:?}, {bytes:?}"));
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer {
            status,
            body: bytes[end + 4..].to_vec(),
            head,
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.text()))
    }

    /// The status, and the text of an error in the words of the first version.
    pub fn told(&self) -> (u16, String) {
        match self.body.is_empty() {
            true => (self.status, String::new()),
            false => (
                self.status,
                self.json()["error"].as_str().unwrap().to_owned(),
            ),
        }
    }
}
