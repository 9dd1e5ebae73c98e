//! Styles and scripts, which are part of the program. The name of each has a hash of its content, so that a browser keeps it for ever
//! and asks for the next build's under another name.

use std::io::Write;
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use crate::service::access::to_hex;

/// A file of the dashboard.
pub struct Asset {
    /// Where it is.
    pub url: String,
    kind: &'static str,
    bytes: &'static [u8],
    compressed: Option<Vec<u8>>,
}

/// Where they are.
pub const PATH: &str = "/dashboard/assets/{file}";

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// What every page has.
pub static STYLES: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("dashboard", "css", STYLE, include_bytes!("../../assets/dashboard.css")));
pub static SCRIPTS: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("dashboard", "js", SCRIPT, include_bytes!("../../assets/dashboard.js")));
pub static HTMX: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("htmx", "js", SCRIPT, include_bytes!("../../assets/htmx-4.0.1.min.js")));
pub static HTMX_SSE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("hx-sse", "js", SCRIPT, include_bytes!("../../assets/hx-sse-4.0.1.min.js")));

/// What pages with charts have.
pub static CHARTS: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("uplot", "js", SCRIPT, include_bytes!("../../assets/uplot-1.6.32.min.js")));
pub static CHART_STYLES: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("uplot", "css", STYLE, include_bytes!("../../assets/uplot-1.6.32.min.css")));

fn all() -> [&'static Asset; 6] {
    [&STYLES, &SCRIPTS, &HTMX, &HTMX_SSE, &CHARTS, &CHART_STYLES]
}

impl Asset {
    fn new(name: &str, extension: &str, kind: &'static str, bytes: &'static [u8]) -> Self {
        let hash = to_hex(&Sha256::digest(bytes)[..6]);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        // Writing into memory cannot fail; if it did, the file would be sent as it is.
        let compressed = encoder.write_all(bytes).and_then(|()| encoder.finish()).ok();
        Self { url: PATH.replace("{file}", &format!("{name}.{hash}.{extension}")), kind, bytes, compressed }
    }
}

/// Sends a file.
pub async fn send(Path(file): Path<String>, headers: HeaderMap) -> Response {
    let url = PATH.replace("{file}", &file);
    let Some(asset) = all().into_iter().find(|asset| asset.url == url) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let for_ever = "public, max-age=31536000, immutable";
    let common =
        [(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, for_ever), (header::VARY, "accept-encoding")];
    match &asset.compressed {
        Some(compressed) if takes_gzip(&headers) => {
            (common, [(header::CONTENT_ENCODING, "gzip")], compressed.as_slice()).into_response()
        }
        _ => (common, asset.bytes).into_response(),
    }
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|one| {
        let (name, weight) = one.split_once(';').unwrap_or((one, ""));
        name.trim().eq_ignore_ascii_case("gzip") && weight.trim() != "q=0"
    })
}
