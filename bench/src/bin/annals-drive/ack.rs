//! Appends one event at a time, for checkers that kill the process.

use std::io::Write;

use annals::{EventStore, ExpectedVersion, StreamVersion};

use crate::{Fault, target};

/// Runs until it is killed. The numbers continue after the last event in the store.
pub(crate) async fn run(db: &str) -> Result<(), Fault> {
    let store = target::open(db).await?;
    let stream = target::stream("ack")?;
    let mut version = StreamVersion::NONE;
    loop {
        let page = store.load_page(&stream, version, 1_000).await?;
        if let Some(last) = page.events.last() {
            version = last.version;
        }
        if page.end {
            break;
        }
    }
    loop {
        let n = version.get() + 1;
        let event = target::event(store.ids().next_id(), n)?;
        version = store.append(&stream, ExpectedVersion::Exact(version), vec![event]).await?.version();
        let mut out = std::io::stdout().lock();
        writeln!(out, "ACK {n}")?;
        out.flush()?;
    }
}
