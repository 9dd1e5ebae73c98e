use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use crate::http::AnswerBody;

/// An answer as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers, but for those of the connection.
    pub headers: HeaderMap,
    /// The body; `None` if it was too big to keep.
    pub body: Option<Bytes>,
}

/// Marks a repeated answer: `true`, or `without-body` if the body was too big to keep.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Headers of one connection, or one moment.
const OF_THE_MOMENT: [HeaderName; 5] =
    [header::CONNECTION, header::TRANSFER_ENCODING, header::TRAILER, header::UPGRADE, header::DATE];
/// Headers that describe the body.
const OF_THE_BODY: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::ETAG,
    header::LAST_MODIFIED,
];

impl Answer {
    pub(super) fn new(status: StatusCode, headers: &HeaderMap, body: Option<Bytes>) -> Self {
        let mut headers = headers.clone();
        for name in OF_THE_MOMENT {
            headers.remove(name);
        }
        // A part of a bigger buffer would keep all of it in memory.
        let body = body.map(|body| Bytes::copy_from_slice(&body));
        Self { status, headers, body }
    }

    /// Whether repeats get this status, and do not run the handler.
    pub(super) fn is_final(status: StatusCode) -> bool {
        let may_pass = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
        status.is_success() || status.is_client_error() && !may_pass.contains(&status)
    }

    /// Bytes that it takes, about.
    pub(super) fn size(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64);
        headers.sum::<usize>() + self.body.as_ref().map_or(0, Bytes::len)
    }

    /// Makes it small. Headers may be as big as a body, so only the place of what was made is kept of them.
    pub(super) fn forget_body(&mut self) {
        let place = self.headers.remove(header::LOCATION);
        self.headers = place.map(|place| (header::LOCATION, place)).into_iter().collect();
        self.body = None;
    }

    /// Makes it as small as it gets: the status is left.
    pub(super) fn forget_headers(&mut self) {
        self.headers = HeaderMap::new();
    }

    pub(super) fn replay(self) -> Response<AnswerBody> {
        let Self { status, mut headers, body } = self;
        let mark = if body.is_some() { "true" } else { "without-body" };
        if body.is_none() {
            for name in OF_THE_BODY {
                headers.remove(name);
            }
        }
        headers.insert(REPLAYED, HeaderValue::from_static(mark));
        let mut response = Response::new(body.unwrap_or_default().into());
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}
