//! Positions that leave the process, to an HTTP client say, and come back.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use annals_eventstore::{Incarnation, Invalid, Position};
use uuid::Uuid;

use crate::error::WaitError;
use crate::handle::Projections;
use crate::projection::Projection;

/// A position with the incarnation of its store, as short text for a header or a URL: `X-Position` of an answer, which a client
/// sends with its next read to find there what it has written.
///
/// The text is the position, a hyphen and the incarnation in 32 hexadecimal digits: at most 52 characters, of digits, `a` to `f` and
/// `-`. It tells no secret but the number of the position, and is not signed: a client can make others.
///
/// A log that was restored from a backup keeps its incarnation, as a copy does. A token from before is then waited for like
/// any position of the log.
///
/// ```
/// # mod till { include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/till.rs")); }
/// # use till::*;
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("till.db");
/// # use annals_eventstore::{EventStore, EventStoreExt, ExpectedVersion, StreamId, Tenant};
/// # use annals_projections::ProjectionsExt;
/// use annals_projections::PositionToken;
///
/// # let store = annals_eventstore::sqlite(&path).await?;
/// # let stream = StreamId::new(Tenant::default(), "till", "t-1")?;
/// # let views = store.projections().with(PerTill).start().await?;
/// # let sold = store.new_event(&TillEvent::Sold { cents: 4_50 })?;
/// let done = store.append(&stream, ExpectedVersion::Any, vec![sold]).await?;
/// let header = views.token(done.position).to_string(); // with the answer to the command
///
/// let token: PositionToken = header.parse()?; // with the next request
/// views.wait_for_token(&token, std::time::Duration::from_secs(2)).await?;
/// assert_eq!(views.find::<PerTill>(&"t-1".to_owned()).await?.map(|row| row.cents), Some(4_50));
///
/// assert_eq!("17".parse::<PositionToken>().unwrap_err().problem, "is `17`, which has no incarnation behind a hyphen");
/// # views.close().await;
/// # Ok(()) }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PositionToken {
    /// The incarnation of the store that the position belongs to.
    pub incarnation: Incarnation,
    /// The position.
    pub position: Position,
}

impl fmt::Display for PositionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.position, self.incarnation.0.simple())
    }
}

/// The most characters of a bad token that an error shows.
const LONGEST_SHOWN: usize = 60;

/// Parses the text of `Display`, and no other.
impl FromStr for PositionToken {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let wrong = |problem: &str| {
            let shown: String = text.chars().take(LONGEST_SHOWN).flat_map(char::escape_debug).collect();
            let cut = if text.chars().nth(LONGEST_SHOWN).is_some() { ".." } else { "" };
            let problem = format!("is `{shown}{cut}`, which {problem}");
            Invalid::new("position token", problem, "send what came with an answer, unchanged, or leave it out")
        };
        let Some((position, incarnation)) = text.split_once('-') else {
            return Err(wrong("has no incarnation behind a hyphen"));
        };
        let is_canonical =
            position.bytes().all(|b| b.is_ascii_digit()) && (position == "0" || !position.starts_with('0'));
        let position = position.parse().ok().filter(|_| is_canonical);
        let position = position.ok_or_else(|| wrong("does not begin with a whole number of 0 or more, below 2^63"))?;
        let is_hex = incarnation.len() == 32 && incarnation.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let incarnation = Uuid::try_parse(incarnation).ok().filter(|_| is_hex);
        let incarnation =
            incarnation.ok_or_else(|| wrong("does not end with an incarnation of 32 hexadecimal digits"))?;
        Ok(Self { incarnation: Incarnation(incarnation), position: Position::new(position)? })
    }
}

impl Projections {
    /// A position of the store whose events are projected, for a caller outside of this process. [`PositionToken`] has an example.
    #[must_use]
    pub fn token(&self, position: Position) -> PositionToken {
        PositionToken { incarnation: self.names().shared.store.incarnation(), position }
    }

    /// The same as [`Projections::wait_for`] for a position that a caller has brought back.
    ///
    /// # Errors
    /// [`WaitError::OtherStore`] at once if the token is of another store; others as of [`Projections::wait_for`]. A
    /// position that nobody has appended is waited for in vain.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn wait_for_token(&self, token: &PositionToken, timeout: Duration) -> Result<(), WaitError> {
        self.wait_for(self.position_of(token)?, timeout).await
    }

    /// The same as [`Projections::wait_for_token`] for one projection, whatever becomes of the others: for a request that reads
    /// one read model, and should not wait for another that is paused or has stopped.
    ///
    /// # Errors
    /// As of [`Projections::wait_for_token`]; [`WaitError::Unknown`] if `P` was not started.
    ///
    /// # Cancel safety
    /// Dropping the future is harmless.
    pub async fn wait_for_one_token<P: Projection>(
        &self,
        token: &PositionToken,
        timeout: Duration,
    ) -> Result<(), WaitError> {
        self.wait_for_one::<P>(self.position_of(token)?, timeout).await
    }

    /// The position, if it is of the store whose events are projected.
    fn position_of(&self, token: &PositionToken) -> Result<Position, WaitError> {
        let store = self.names().shared.store.incarnation();
        match token.incarnation == store {
            true => Ok(token.position),
            false => Err(WaitError::OtherStore { token: *token, store }),
        }
    }
}
