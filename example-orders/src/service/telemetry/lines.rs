//! Lines of the log, and the thread that writes them.
//!
//! A request never waits for the reader of the log. What cannot be written in time is dropped and counted.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;
use tracing::Level;

/// How many lines may wait to be written.
const WAITING: usize = 16 * 1024;
/// As much is written at once.
const AT_ONCE: usize = 64 * 1024;

/// How a line looks.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    Text,
    /// An object of JSON.
    Json,
}

/// What a line says.
pub struct Line {
    pub at: Timestamp,
    pub level: Level,
    /// The module that it comes from.
    pub target: &'static str,
    pub message: String,
    /// The trace and the span, as they are written in a `traceparent`.
    pub trace: Option<(String, String)>,
    /// What else there is to say, in its order.
    pub fields: Vec<(&'static str, Value)>,
}

impl Line {
    fn json(self) -> String {
        let mut object = Map::new();
        object.insert("timestamp".to_owned(), json!(self.at));
        object.insert("level".to_owned(), json!(self.level.as_str()));
        object.insert("target".to_owned(), json!(self.target));
        object.insert("message".to_owned(), json!(self.message));
        if let Some((trace, span)) = self.trace {
            object.insert("trace_id".to_owned(), Value::String(trace));
            object.insert("span_id".to_owned(), Value::String(span));
        }
        let fields = self.fields.into_iter().map(|(name, value)| (name.to_owned(), value));
        object.insert("fields".to_owned(), Value::Object(fields.collect()));
        format!("{}\n", Value::Object(object))
    }

    fn text(self) -> String {
        let mut line = format!("{:.3} {:>5} {}", self.at, self.level.as_str(), one_line(&self.message));
        for (name, value) in &self.fields {
            // Writing to a text does not fail.
            let _ = match value {
                Value::String(text) if is_word(text) => write!(line, " {name}={text}"),
                value => write!(line, " {name}={value}"),
            };
        }
        if let Some((trace, _)) = &self.trace {
            let _ = write!(line, " trace_id={trace}");
        }
        line + "\n"
    }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"')
}

/// Whatever a message holds, a line is one line.
fn one_line(text: &str) -> String {
    if text.contains(char::is_control) { text.escape_debug().to_string() } else { text.to_owned() }
}

enum Job {
    Write(String),
    /// All before it is written.
    Flush(oneshot::Sender<()>),
}

/// Where lines go.
#[derive(Clone)]
pub struct Lines {
    format: Format,
    jobs: SyncSender<Job>,
    dropped: Arc<AtomicU64>,
}

impl Lines {
    /// Begins to write.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub fn start(format: Format) -> std::io::Result<Self> {
        let (jobs, waiting) = sync_channel(WAITING);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write(&waiting))?;
        Ok(Self { format, jobs, dropped: Arc::default() })
    }

    /// Writes a line soon, or drops it if too many wait.
    pub fn write(&self, line: Line) {
        let text = match self.format {
            Format::Text => line.text(),
            Format::Json => line.json(),
        };
        if self.jobs.try_send(Job::Write(text)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many lines were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all is written, but not longer than `limit`.
    pub async fn flush(&self, limit: Duration) {
        let (done, flushed) = oneshot::channel();
        if self.jobs.try_send(Job::Flush(done)).is_ok() {
            // The reader of the log may have stopped.
            let _ = tokio::time::timeout(limit, flushed).await;
        }
    }
}

fn write(waiting: &Receiver<Job>) {
    let (mut text, mut flushed) = (String::new(), Vec::new());
    while let Ok(job) = waiting.recv() {
        let mut next = Some(job);
        while let Some(job) = next {
            match job {
                Job::Write(line) => text.push_str(&line),
                Job::Flush(done) => flushed.push(done),
            }
            next = if text.len() < AT_ONCE { waiting.try_recv().ok() } else { None };
        }
        // There is nowhere to say that the log cannot be written.
        let _ = std::io::stderr().write_all(text.as_bytes());
        text.clear();
        for done in flushed.drain(..) {
            let _ = done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str) -> Line {
        Line {
            at: Timestamp::UNIX_EPOCH,
            level: Level::INFO,
            target: "shop",
            message: message.to_owned(),
            trace: Some(("t".to_owned(), "s".to_owned())),
            fields: vec![("a", json!(1)), ("b", json!("x y")), ("c", json!("z"))],
        }
    }

    #[test]
    fn a_line_is_one_line_whatever_it_says() {
        assert_eq!(line("it is").text(), "1970-01-01T00:00:00.000Z  INFO it is a=1 b=\"x y\" c=z trace_id=t\n");
        for message in ["a\nb", "a\r\u{2028}b", "\u{1b}[31m"] {
            for text in [line(message).text(), line(message).json()] {
                assert!(text.chars().filter(|c| c.is_control()).count() == 1 && text.ends_with('\n'), "{text:?}");
            }
        }
        let json: Value = serde_json::from_str(&line("a\nb").json()).expect("JSON");
        assert_eq!(
            (&json["message"], &json["trace_id"], &json["fields"]["b"]),
            (&json!("a\nb"), &json!("t"), &json!("x y"))
        );
    }
}
