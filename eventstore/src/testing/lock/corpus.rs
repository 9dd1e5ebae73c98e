//! The corpus: stored events in files, as a store has them.

use std::path::Path;

use serde::Deserialize;

use crate::payload::Payload;

/// One file of the corpus.
pub(super) struct Stored {
    pub(super) file: String,
    pub(super) content: Content,
}

pub(super) enum Content {
    /// `order.placed.v1.json`, or `order.placed.v1.without-note.json`: a payload of this name and schema version.
    Event(StoredEvent),
    /// `paid-and-cancelled.history.json`: events of one stream, in order.
    History(Vec<StoredEvent>),
}

pub(super) struct StoredEvent {
    pub(super) name: String,
    pub(super) version: u32,
    pub(super) payload: Payload,
}

impl Stored {
    pub(super) fn events(&self) -> &[StoredEvent] {
        match &self.content {
            Content::Event(event) => std::slice::from_ref(event),
            Content::History(events) => events,
        }
    }

    /// The payloads as one text, without what does not count in JSON.
    pub(super) fn text(&self) -> String {
        let line = |event: &StoredEvent| format!("{} {} {}\n", event.name, event.version, event.payload.as_str());
        self.events().iter().map(line).collect()
    }
}

/// Every file of the folder, in the order of their names; else what is wrong with the files.
pub(super) fn read_corpus(folder: &Path) -> Result<Vec<Stored>, Vec<String>> {
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(|error| {
        vec![format!(
            "{}: cannot be read ({error}); make the folder, and put one payload per event into it",
            folder.display()
        )]
    })?;
    let mut files: Vec<_> = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    files.retain(|file| !file.starts_with('.'));
    files.sort_unstable();
    let (mut stored, mut wrong) = (Vec::new(), Vec::new());
    for file in files {
        match std::fs::read_to_string(folder.join(&file))
            .map_err(|error| error.to_string())
            .and_then(|text| content(&file, &text))
        {
            Ok(content) => stored.push(Stored { file, content }),
            Err(what) => wrong.push(format!("{}: {what}", folder.join(&file).display())),
        }
    }
    if wrong.is_empty() { Ok(stored) } else { Err(wrong) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InHistory {
    name: String,
    version: u32,
    payload: Box<serde_json::value::RawValue>,
}

fn content(file: &str, text: &str) -> Result<Content, String> {
    let payload = |text: &str| Payload::from_json(text).map_err(|error| format!("{error}"));
    if file.ends_with(".history.json") {
        let events: Vec<InHistory> = serde_json::from_str(text).map_err(|error| {
            format!("{error}; a history is `[{{\"name\": \"..\", \"version\": 1, \"payload\": ..}}, ..]`")
        })?;
        let event = |InHistory { name, version, payload: json }: InHistory| {
            Ok(StoredEvent { name, version, payload: payload(json.get())? })
        };
        return events.into_iter().map(event).collect::<Result<_, _>>().map(Content::History);
    }
    let (name, version) = name_and_version(file).ok_or(
        "is not named like `order.placed.v1.json`, `order.placed.v1.another.json` or `any-words.history.json`; rename it",
    )?;
    Ok(Content::Event(StoredEvent { name, version, payload: payload(text)? }))
}

/// What a file is named after: the event's name, `.v` and the schema version, and possibly a word of its own.
fn name_and_version(file: &str) -> Option<(String, u32)> {
    let parts: Vec<&str> = file.strip_suffix(".json")?.split('.').collect();
    let at =
        parts.iter().rposition(|part| part.strip_prefix('v').is_some_and(|digits| digits.parse::<u32>().is_ok()))?;
    let version = parts[at].strip_prefix('v')?.parse().ok().filter(|version| *version > 0)?;
    (at > 0 && at + 2 >= parts.len()).then(|| (parts[..at].join("."), version))
}
