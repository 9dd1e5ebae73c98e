//! Reading what one has just written: `X-Position` of an answer comes back as `at_least` of a later request, which waits until the
//! read model shows that much.

use std::time::Duration;

use annals::projections::PositionToken;
use annals::resilience::Deadline;
use annals::{Position, Projection};
use axum::http::{HeaderName, HeaderValue};

use crate::service::app::App;
use crate::service::problem::Problem;

/// The header of an answer that says up to where its writer has to wait.
pub const POSITION: HeaderName = HeaderName::from_static("x-position");

/// The longest that a request waits.
const LONGEST: Duration = Duration::from_secs(2);

impl App {
    /// The position as the header has it.
    pub fn position(&self, position: Position) -> [(HeaderName, HeaderValue); 1] {
        let token = self.shop.views.token(position).to_string();
        // It is made of digits, letters and a hyphen.
        [(POSITION, HeaderValue::from_str(&token).unwrap_or(HeaderValue::from_static("")))]
    }

    /// Waits until `P` shows what the caller has seen, not longer than the deadline.
    ///
    /// A position that the log has not reached is refused at once, so that no request is held for one that may never come. A
    /// position says nothing about whose event is there, so one of another tenant is as good as any.
    pub async fn shows<P: Projection>(&self, at_least: Option<&str>, deadline: Deadline) -> Result<(), Problem> {
        let Some(text) = at_least else { return Ok(()) };
        let token: PositionToken =
            text.parse().map_err(|e| Problem::bad("position-invalid", format!("`at_least`: {e}")))?;
        if self.shop.views.token(token.position) != token {
            let detail = "`at_least` is a position of another store; leave it out";
            return Err(Problem::bad("position-of-another-store", detail));
        }
        if token.position > self.shop.store.head().await?.position {
            let detail =
                format!("`at_least` is {}, which is ahead of the log; send what came with an answer", token.position);
            return Err(Problem::bad("position-ahead", detail));
        }
        let full = || Problem::later("too-many-waits", "too many requests wait for the read models");
        let _room = self.waits.try_acquire().map_err(|_| full())?;
        let longest = deadline.left().map_or(LONGEST, |left| left.min(LONGEST));
        Ok(self.shop.views.wait_for_one_token::<P>(&token, longest).await?)
    }
}
