//! A service of the load's own, in this process, on a store that is deleted at the end. It is reached by HTTP as any other.

use std::io::{self, Write};
use std::net::Ipv4Addr;

use annals::resilience::rate_limit::RateLimit;
use annals::resilience::receiver::MemorySettings;
use tokio::sync::oneshot;

use crate::Fault;
use crate::service::{self, LogSettings, Settings};

/// More than any load sends.
const MANY: u32 = 1_000_000;

/// Runs `work` with the address of a service that stands as long as it takes.
///
/// # Errors
/// The service cannot start or end, the work fails, or somebody asks the process to stop.
pub async fn with_own_service<T>(work: impl AsyncFnOnce(String) -> Result<T, Fault>) -> Result<T, Fault> {
    let folder = tempfile::tempdir()?;
    let keys = MemorySettings {
        keys: MANY as usize,
        keys_of_a_group: MANY as usize,
        keys_of_a_caller: MANY as usize,
        ..MemorySettings::default()
    };
    let settings = Settings {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        db: Some(folder.path().join("orders.db")),
        limits: RateLimit::per_second(MANY),
        idempotency: keys,
        // A line for each request would hide what the load says.
        log: LogSettings { level: "warn".to_owned(), ..LogSettings::default() },
        ..Settings::default()
    };
    let (opening, opened) = oneshot::channel();
    let (stop, stopped) = oneshot::channel::<()>();
    // What it prints ends with it, so that nobody waits for the address of one that did not start.
    let serving =
        async move { service::serve(settings, async { drop(stopped.await) }, &mut Printed::new(opening)).await };
    let working = async move {
        let Ok(address) = opened.await else { return Ok(None) };
        let result = tokio::select! {
            result = work(address) => result.map(Some),
            () = service::asked_to_stop() => Err("it was asked to stop before its end".into()),
        };
        drop(stop);
        result
    };
    let (served, worked) = tokio::join!(serving, working);
    served?;
    worked?.ok_or_else(|| "the service has ended before it was open".into())
}

/// What the service prints; its address is in the first line.
struct Printed {
    line: Vec<u8>,
    opening: Option<oneshot::Sender<String>>,
}

impl Printed {
    fn new(opening: oneshot::Sender<String>) -> Self {
        Self { line: Vec::new(), opening: Some(opening) }
    }
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.opening.is_some() {
            self.line.extend_from_slice(bytes);
            let text = String::from_utf8_lossy(&self.line);
            let address = text.find("http://").and_then(|at| text[at..].split_once(';'));
            if let Some((address, opening)) = address.and_then(|(address, _)| Some((address, self.opening.take()?))) {
                // The receiver is gone if the process was asked to stop.
                let _ = opening.send(address.to_owned());
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
