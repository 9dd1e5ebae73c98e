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

/// The longest that a request waits: a little more than a read model stands still after its process has died (`lease_ms`).
const LONGEST: Duration = Duration::from_secs(3);

impl App {
    /// The position as the header has it.
    pub fn position(&self, position: Position) -> [(HeaderName, HeaderValue); 1] {
        let token = self.shop.views.token(position).to_string();
        // It is made of digits, letters and a hyphen.
        [(POSITION, HeaderValue::from_str(&token).unwrap_or(HeaderValue::from_static("")))]
    }

    /// The position that the caller has seen, if it is one of this store.
    pub fn seen(&self, at_least: Option<&str>) -> Result<Option<Position>, Problem> {
        let Some(text) = at_least else { return Ok(None) };
        let token: PositionToken =
            text.parse().map_err(|e| Problem::bad("position-invalid", format!("`at_least`: {e}")))?;
        if self.shop.views.token(token.position) != token {
            let detail = "`at_least` is a position of another store; leave it out";
            return Err(Problem::bad("position-of-another-store", detail));
        }
        Ok(Some(token.position))
    }

    /// Waits until `P` shows what the caller has seen, not longer than the deadline.
    ///
    /// A position that the log has not reached is refused at once, so that no request is held for one that may never come. A
    /// position says nothing about whose event is there, so one of another tenant is as good as any.
    pub async fn shows<P: Projection>(&self, at_least: Option<&str>, deadline: Deadline) -> Result<(), Problem> {
        self.wait_for::<P>(self.seen(at_least)?, deadline).await
    }

    /// The same for a position that was looked at before.
    pub async fn wait_for<P: Projection>(&self, seen: Option<Position>, deadline: Deadline) -> Result<(), Problem> {
        let Some(seen) = seen else { return Ok(()) };
        let deadline = deadline.child(LONGEST);
        self.reached(seen, deadline).await?;
        let full = || Problem::later("too-many-waits", "too many requests wait for the read models");
        let _room = self.waits.try_acquire().map_err(|_| full())?;
        let longest = deadline.left().unwrap_or(LONGEST);
        Ok(self.shop.views.wait_for_one::<P>(seen, longest).await?)
    }

    /// Whether the caller has seen a position; the log has it. For what is read from the log itself, and only kept.
    pub async fn has_seen(&self, at_least: Option<&str>, deadline: Deadline) -> Result<bool, Problem> {
        let Some(seen) = self.seen(at_least)? else { return Ok(false) };
        self.reached(seen, deadline.child(LONGEST)).await?;
        Ok(true)
    }

    /// Refuses a position that the log has not reached.
    async fn reached(&self, seen: Position, deadline: Deadline) -> Result<(), Problem> {
        let silent = |_| Problem::later("unavailable", "the end of the log could not be read in time");
        if seen > deadline.run(self.shop.store.head()).await.map_err(silent)??.position {
            let detail = format!("`at_least` is {seen}, which is ahead of the log; send what came with an answer");
            return Err(Problem::bad("position-ahead", detail));
        }
        Ok(())
    }

    /// Up to where readers of a list see the log: each read model that it is made of shows that much.
    pub async fn progress(&self, of: &[&str]) -> Result<Position, Problem> {
        let all = self.shop.views.progress().await?;
        let of = all.iter().filter(|one| of.contains(&&*one.projection)).map(|one| one.position);
        Ok(of.min().unwrap_or(Position::START))
    }
}
