//! Reading a body: within its bound, in its time, unpacked.

use std::{io, io::Write, time::Duration};

use axum::{
    body::{Body, HttpBody},
    http::{HeaderMap, header},
};
use flate2::write::MultiGzDecoder;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout_at};

use super::budget::{Budget, Full, Share};

/// After a body that is too large its client is listened to for so long, so that it hears why:
/// bytes that nobody reads would cut the answer off.
const LINGER: Duration = Duration::from_secs(2);

/// What a body may be.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// As it comes and when it is unpacked.
    pub bytes: usize,
    /// How long it may take.
    pub time: Duration,
    /// What all bodies take together.
    pub budget: Budget,
}

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("Request Entity Too Large: a body has {0} bytes at most, unpacked")]
    TooLarge(usize),
    #[error("the body took longer than {}", humantime::format_duration(*.0))]
    TooSlow(Duration),
    #[error("the body broke off")]
    BrokeOff(#[source] axum::Error),
    #[error("the body is no gzip, or not all of one")]
    NotGzip(#[source] io::Error),
    #[error("Content-Encoding: {0} is not known; send gzip or nothing")]
    Encoding(String),
    #[error(transparent)]
    Full(#[from] Full),
}

/// A body, and its place in the budget.
#[derive(Debug)]
pub struct Read {
    pub bytes: Vec<u8>,
    pub share: Share,
}

/// Reads a body as its headers say.
pub async fn read(headers: &HeaderMap, mut body: Body, bounds: &Bounds) -> Result<Read, BodyError> {
    let mut sink = Sink::new(headers, bounds)?;
    let until = Instant::now() + bounds.time;
    let too_large = Err(BodyError::TooLarge(bounds.bytes));
    if body.size_hint().lower() > bounds.bytes as u64 {
        // A client that waits for `100 Continue` is not told to send it.
        if !headers.contains_key(header::EXPECT) {
            linger(body, bounds).await;
        }
        return too_large;
    }
    let mut came = 0;
    loop {
        let frame = match timeout_at(until, body.frame()).await {
            Err(_) => return Err(BodyError::TooSlow(bounds.time)),
            Ok(None) => return sink.end(),
            Ok(Some(frame)) => frame.map_err(BodyError::BrokeOff)?,
        };
        let Ok(bytes) = frame.into_data() else {
            continue;
        };
        came += bytes.len();
        let added = match came > bounds.bytes {
            true => Err(BodyError::TooLarge(bounds.bytes)),
            false => sink.add(&bytes),
        };
        if let Err(error) = added {
            if !matches!(error, BodyError::NotGzip(_)) {
                drop(sink);
                linger(body, bounds).await;
            }
            return Err(error);
        }
    }
}

/// Takes what the client has yet to send, and forgets it: as much again at most.
async fn linger(mut body: Body, bounds: &Bounds) {
    let until = Instant::now() + LINGER.min(bounds.time);
    let mut bytes = 0;
    while bytes <= 2 * bounds.bytes {
        match timeout_at(until, body.frame()).await {
            Ok(Some(Ok(frame))) => bytes += frame.data_ref().map_or(0, |data| data.len()),
            _ => return,
        }
    }
}

/// Where the bytes go as they come.
enum Sink {
    Plain(Bounded),
    Gzip(Box<MultiGzDecoder<Bounded>>),
}

impl Sink {
    fn new(headers: &HeaderMap, bounds: &Bounds) -> Result<Sink, BodyError> {
        let bounded = Bounded {
            bytes: Vec::new(),
            bytes_max: bounds.bytes,
            share: bounds.budget.share(),
            refused: None,
        };
        let encoding = headers.get(header::CONTENT_ENCODING);
        let encoding = encoding.map_or(&b"identity"[..], |it| it.as_bytes());
        if encoding.eq_ignore_ascii_case(b"identity") || encoding.is_empty() {
            Ok(Sink::Plain(bounded))
        } else if encoding.eq_ignore_ascii_case(b"gzip") {
            Ok(Sink::Gzip(Box::new(MultiGzDecoder::new(bounded))))
        } else {
            let shown = String::from_utf8_lossy(encoding);
            Err(BodyError::Encoding(shown.chars().take(40).collect()))
        }
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), BodyError> {
        match self {
            Sink::Plain(bounded) => {
                let added = bounded.write_all(bytes);
                added.map_err(|error| bounded.why(error))
            }
            Sink::Gzip(decoder) => {
                let added = decoder.write_all(bytes);
                added.map_err(|error| decoder.get_mut().why(error))
            }
        }
    }

    fn end(self) -> Result<Read, BodyError> {
        let bounded = match self {
            Sink::Plain(bounded) => bounded,
            Sink::Gzip(mut decoder) => {
                if let Err(error) = decoder.try_finish() {
                    return Err(decoder.get_mut().why(error));
                }
                decoder.finish().map_err(BodyError::NotGzip)?
            }
        };
        Ok(Read {
            bytes: bounded.bytes,
            share: bounded.share,
        })
    }
}

/// Bytes within their bound.
struct Bounded {
    bytes: Vec<u8>,
    bytes_max: usize,
    share: Share,
    refused: Option<BodyError>,
}

impl Bounded {
    fn why(&mut self, error: io::Error) -> BodyError {
        let refused = self.refused.take();
        refused.unwrap_or(BodyError::NotGzip(error))
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_room = self.bytes.len() + bytes.len() <= self.bytes_max;
        let grown = match is_room {
            true => self.share.grow(bytes.len()).map_err(BodyError::Full),
            false => Err(BodyError::TooLarge(self.bytes_max)),
        };
        match grown {
            Ok(()) => {
                self.bytes.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            Err(why) => {
                self.refused = Some(why);
                Err(io::ErrorKind::OutOfMemory.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use flate2::{Compression, write::GzEncoder};
    use futures_util::stream;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn bounds(bytes: usize, all: u64) -> Bounds {
        Bounds {
            bytes,
            time: Duration::from_secs(5),
            budget: Budget::new(all),
        }
    }

    async fn read_as(
        encoding: Option<&str>,
        pieces: Vec<Vec<u8>>,
        bounds: &Bounds,
    ) -> Result<Vec<u8>, BodyError> {
        let mut headers = HeaderMap::new();
        if let Some(encoding) = encoding {
            headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
        }
        let pieces = pieces
            .into_iter()
            .map(|piece| Ok::<_, io::Error>(Bytes::from(piece)));
        let body = Body::from_stream(stream::iter(pieces));
        read(&headers, body, bounds).await.map(|read| read.bytes)
    }

    #[tokio::test]
    async fn a_body_is_read_plain_and_as_gzip_of_one_or_two_members() {
        let bounds = bounds(100, 1000);
        let plain = read_as(None, vec![b"cpu ".into(), b"v=1".into()], &bounds).await;
        assert_eq!(plain.unwrap(), b"cpu v=1");
        let packed = gzip(b"cpu v=1");
        for encoding in ["gzip", "GZIP"] {
            let pieces = packed.chunks(3).map(<[u8]>::to_vec).collect();
            let read = read_as(Some(encoding), pieces, &bounds).await;
            assert_eq!(read.unwrap(), b"cpu v=1");
        }
        let two = [packed.clone(), gzip(b"\ncpu v=2")].concat();
        let read = read_as(Some("gzip"), vec![two], &bounds).await;
        assert_eq!(read.unwrap(), b"cpu v=1\ncpu v=2");
        assert_eq!(bounds.budget.taken(), 0);
    }

    #[tokio::test]
    async fn half_a_gzip_and_none_at_all_are_told() {
        let packed = gzip(&b"cpu v=1\n".repeat(10));
        let half = packed[..packed.len() / 2].to_vec();
        for body in [
            half,
            packed[..packed.len() - 1].to_vec(),
            b"cpu v=1".to_vec(),
        ] {
            let read = read_as(Some("gzip"), vec![body.clone()], &bounds(1000, 1000)).await;
            assert!(
                matches!(read, Err(BodyError::NotGzip(_))),
                "{body:?}: {read:?}"
            );
        }
        let read = read_as(Some("br"), Vec::new(), &bounds(1000, 1000)).await;
        assert!(matches!(read, Err(BodyError::Encoding(it)) if it == "br"));
    }

    #[tokio::test]
    async fn a_body_ends_at_its_bound_however_it_is_packed() {
        let exact = read_as(None, vec![vec![b'a'; 1000]], &bounds(1000, 1000)).await;
        assert_eq!(exact.unwrap().len(), 1000);
        let more = read_as(None, vec![vec![b'a'; 1001]], &bounds(1000, 5000)).await;
        assert!(matches!(more, Err(BodyError::TooLarge(1000))), "{more:?}");
        // A megabyte of it is a gigabyte.
        let bomb = gzip(&vec![0; 50_000_000]);
        let bounds = bounds(1_000_000, 2_000_000);
        assert!(bomb.len() < 100_000);
        let read = read_as(Some("gzip"), vec![bomb], &bounds).await;
        assert!(
            matches!(read, Err(BodyError::TooLarge(1_000_000))),
            "{read:?}"
        );
        assert_eq!(bounds.budget.taken(), 0);
    }

    #[tokio::test]
    async fn bodies_together_end_at_theirs() {
        let bounds = bounds(1000, 1500);
        let mut other = bounds.budget.share();
        other.grow(600).unwrap();
        let read = read_as(None, vec![vec![b'a'; 1000]], &bounds).await;
        assert!(matches!(read, Err(BodyError::Full(_))), "{read:?}");
        drop(other);
        assert!(read_as(None, vec![vec![b'a'; 1000]], &bounds).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn silence_within_a_body_is_an_end() {
        let pieces = stream::unfold(0, |sent| async move {
            match sent {
                0 => Some((Ok::<_, io::Error>(Bytes::from_static(b"cpu")), 1)),
                _ => std::future::pending().await,
            }
        });
        let body = Body::from_stream(pieces);
        let read = read(&HeaderMap::new(), body, &bounds(1000, 1000)).await;
        assert!(matches!(read, Err(BodyError::TooSlow(_))), "{read:?}");
    }
}
