//! A payment service that is given by its URL.

use std::sync::Arc;

use annals::resilience::IdempotencyKey;
use annals::sagas::StepError;
use annals::sagas::participant::outcome;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::header;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;

use crate::Fault;

/// What is asked of the service.
#[derive(Serialize)]
pub(crate) struct Payment<'a> {
    pub(crate) kind: &'static str,
    pub(crate) order: &'a str,
    pub(crate) cents: u64,
}

/// Where the service is.
#[derive(Clone)]
pub(crate) struct Service(Arc<Place>);

struct Place {
    uri: Uri,
    host: String,
    port: u16,
}

impl Service {
    pub(crate) fn at(url: &str) -> Result<Self, Fault> {
        let uri: Uri = url.parse().map_err(|e| format!("`{url}` is no URL: {e}"))?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("http"));
        let host = host.ok_or_else(|| format!("`{url}` is no address of a service; use `http://host:port/path`"))?;
        let (host, port) = (host.trim_matches(['[', ']']).to_owned(), uri.port_u16().unwrap_or(80));
        Ok(Self(Arc::new(Place { uri, host, port })))
    }

    /// Posts a payment under a key. What the service was not reached for has not happened; what it has not answered may have.
    pub(crate) async fn post(&self, payment: &Payment<'_>, key: &IdempotencyKey) -> Result<(), StepError> {
        let Place { uri, host, port } = &*self.0;
        let body = serde_json::to_vec(payment).map_err(StepError::refused)?;
        let request = Request::post(uri.path_and_query().map_or("/", |path| path.as_str()))
            .header(header::HOST, uri.authority().map_or(host.as_str(), |authority| authority.as_str()))
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", key.as_str())
            .body(Full::new(Bytes::from(body)))
            .map_err(StepError::refused)?;
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(StepError::transient)?;
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(StepError::transient)?;
        // It ends with the sender, or tells it why it has ended.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(StepError::unknown)?;
        // No body is wanted, so none that comes can be wrong.
        outcome(response.status(), response.headers(), b"")
    }
}
