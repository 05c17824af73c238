//! Requests to one server.

use std::time::Duration;

use bytes::Bytes;
use form_urlencoded::Serializer;
use http::{
    HeaderValue, Method, Request, StatusCode,
    header::{AUTHORIZATION, CONTENT_ENCODING, USER_AGENT},
};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::{
    answer::Answer,
    body::Body,
    credentials::Credentials,
    error::WriterError,
    http_client::{HttpClient, address, client},
    settings::NodeSettings,
    together::Together,
    troubles::Troubles,
};
use crate::Target;

/// So much of an answer is read.
const ANSWER_BYTES: usize = 64 * 1024;

const AGENT: HeaderValue = HeaderValue::from_static("hh-relay");

/// A server, and what is known of it.
#[derive(Debug)]
pub struct Node {
    address: String,
    client: HttpClient,
    credentials: Option<Credentials>,
    pub timeout: Duration,
    pub troubles: Troubles,
    pub together: Together,
}

/// A request that got no answer. It may have been carried out.
#[derive(Debug, thiserror::Error)]
#[error("no answer from {address}")]
pub struct NoAnswer {
    address: String,
    source: Why,
}

#[derive(Debug, thiserror::Error)]
enum Why {
    #[error("it took longer than {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    #[error("the request failed")]
    Failed(#[from] hyper_util::client::legacy::Error),
    #[error("the request cannot be made")]
    NotMade(#[from] http::Error),
}

impl Node {
    pub fn new(settings: &NodeSettings) -> Result<Node, WriterError> {
        if settings.timeout < Duration::from_millis(1) {
            let setting = format!("node {}: timeout", settings.id);
            return Err(WriterError::TooSmall(setting, "1ms"));
        }
        Ok(Node {
            address: address(settings)?,
            client: client(settings)?,
            credentials: Credentials::of(settings)?,
            timeout: settings.timeout,
            troubles: Troubles::new(settings.id),
            together: Together::default(),
        })
    }

    /// Asks whether it is there.
    pub async fn ping(&self) -> Result<Answer, NoAnswer> {
        let uri = format!("{}/ping", self.address);
        self.ask(&Method::GET, &uri, &Body::default()).await
    }

    /// Sends lines.
    pub async fn write(&self, target: &Target, body: &Body) -> Result<Answer, NoAnswer> {
        let uri = self.write_uri(target);
        self.ask(&Method::POST, &uri, body).await
    }

    fn write_uri(&self, target: &Target) -> String {
        let path = format!("{}/write?", self.address);
        let path_bytes = path.len();
        let mut query = Serializer::for_suffix(path, path_bytes);
        query.append_pair("db", &target.database);
        if let Some(policy) = &target.retention_policy {
            query.append_pair("rp", policy);
        }
        query.append_pair("precision", target.precision.as_str());
        query.finish()
    }

    /// One request, and another one if the password in the file is a new one.
    async fn ask(&self, method: &Method, uri: &str, body: &Body) -> Result<Answer, NoAnswer> {
        let Some(credentials) = &self.credentials else {
            return self.ask_as(None, method, uri, body).await;
        };
        let header = credentials.header();
        let answer = self.ask_as(Some(&header), method, uri, body).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        match credentials.instead_of(&header).await {
            Some(header) => self.ask_as(Some(&header), method, uri, body).await,
            None => Ok(answer),
        }
    }

    async fn ask_as(
        &self,
        credentials: Option<&HeaderValue>,
        method: &Method,
        uri: &str,
        body: &Body,
    ) -> Result<Answer, NoAnswer> {
        let no_answer = |source| NoAnswer {
            address: self.address.clone(),
            source,
        };
        let request = request(credentials, method, uri, body);
        let request = request.map_err(|error| no_answer(error.into()))?;
        let until = Instant::now() + self.timeout;
        let answer = timeout_at(until, self.client.request(request)).await;
        let answer = answer.map_err(|_| no_answer(Why::TimedOut(self.timeout)))?;
        let (head, body) = answer
            .map_err(|error| no_answer(error.into()))?
            .into_parts();
        let mut read = Vec::new();
        // The status says what became of the request, whether the rest comes or not.
        let _ = timeout_at(until, read_some(body, &mut read)).await;
        Ok(Answer::new(head.status, &head.headers, &read))
    }
}

fn request(
    credentials: Option<&HeaderValue>,
    method: &Method,
    uri: &str,
    body: &Body,
) -> http::Result<Request<Full<Bytes>>> {
    let mut request = Request::builder().method(method).uri(uri);
    request = request.header(USER_AGENT, AGENT);
    if let Some(credentials) = credentials {
        request = request.header(AUTHORIZATION, credentials);
    }
    if body.is_gzip {
        request = request.header(CONTENT_ENCODING, "gzip");
    }
    request.body(Full::new(body.bytes.clone()))
}

/// Reads until the end, an error or the bound, which what hyper reads at once may exceed.
async fn read_some(mut body: Incoming, read: &mut Vec<u8>) {
    while let Some(Ok(frame)) = body.frame().await {
        read.extend_from_slice(&frame.into_data().unwrap_or_default());
        if read.len() >= ANSWER_BYTES {
            return;
        }
    }
}
