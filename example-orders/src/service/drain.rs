//! The end of the service, as requests in flight see it. Nobody finds a connection that is cut: who waits for something that goes on
//! without them is answered at once, and who is not finished when the time is nearly over is answered that it is.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// So long before the end the last answers are sent.
const TO_ANSWER: Duration = Duration::from_millis(500);

/// Whether the service stops. Clones are the same.
#[derive(Clone)]
pub struct Drain(watch::Sender<Option<Instant>>);

impl Default for Drain {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Drain {
    /// The service stops, and requests in flight have so much time.
    pub fn begin(&self, time: Duration) {
        self.0.send_replace(Some(Instant::now() + time.saturating_sub(TO_ANSWER.min(time / 2))));
    }

    /// Waits until the service stops.
    pub async fn begun(&self) {
        self.last_answers().await;
    }

    /// Waits until the time of requests in flight is nearly over.
    pub async fn over(&self) {
        sleep_until(self.last_answers().await).await;
    }

    async fn last_answers(&self) -> Instant {
        let mut stopping = self.0.subscribe();
        match stopping.wait_for(Option::is_some).await.map(|at| *at) {
            Ok(Some(at)) => at,
            // The sender is in `self`.
            _ => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn last_answers_are_sent_before_the_end_and_who_waits_is_answered_at_the_beginning() {
        for (seconds, last) in [(10, 9_500), (0, 0)] {
            let drain = Drain::default();
            assert!(tokio::time::timeout(Duration::from_secs(60), drain.begun()).await.is_err());
            let begun = Instant::now();
            drain.begin(Duration::from_secs(seconds));
            drain.begun().await;
            assert_eq!(begun.elapsed(), Duration::ZERO);
            drain.over().await;
            assert_eq!(begun.elapsed(), Duration::from_millis(last));
        }
    }
}
