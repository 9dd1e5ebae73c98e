//! The lines of a lock file.

use std::fmt;

/// What the first line says; it is never compared.
pub(super) const HEADER: &str =
    "# Written by annals, not by hand: `ANNALS_UPDATE_LOCK=1 cargo test` adds what is new. Keep it in version control.";

/// One line. Each stands alone, so that branches which add lines are merged without thought.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Line {
    /// The state of an aggregate after the events of a file.
    Fold { aggregate: String, fold: u32, file: String, digest: String },
    /// The content of a file.
    Payload { file: String, digest: String },
    /// What the event of a file, of a version that is not written any more, is read as: the names and versions, and a digest of
    /// the events.
    Reading { file: String, digest: String, into: Vec<String> },
    /// What the event of a file has at a path, once it is written again.
    Shape { file: String, path: String, kind: String },
    /// What some state of an aggregate has at a path.
    State { aggregate: String, fold: u32, path: String, kind: String },
}

impl fmt::Display for Line {
    /// Fields are separated by tabs, which neither names nor JSON have.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fold { aggregate, fold, file, digest } => write!(f, "fold\t{aggregate}\t{fold}\t{file}\t{digest}"),
            Self::Payload { file, digest } => write!(f, "payload\t{file}\t{digest}"),
            Self::Reading { file, digest, into } => {
                write!(f, "reading\t{file}\t{digest}")?;
                into.iter().try_for_each(|name| write!(f, "\t{name}"))
            }
            Self::Shape { file, path, kind } => write!(f, "shape\t{file}\t{path}\t{kind}"),
            Self::State { aggregate, fold, path, kind } => write!(f, "state\t{aggregate}\t{fold}\t{path}\t{kind}"),
        }
    }
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let fields: Vec<String> = text.split('\t').map(str::to_owned).collect();
        let [word, fields @ ..] = &fields[..] else { return None };
        match (word.as_str(), fields.to_vec()) {
            ("fold", fields) => {
                let [aggregate, fold, file, digest] = fields.try_into().ok()?;
                Some(Self::Fold { aggregate, fold: fold.parse().ok()?, file, digest })
            }
            ("payload", fields) => {
                let [file, digest] = fields.try_into().ok()?;
                Some(Self::Payload { file, digest })
            }
            ("reading", fields) => {
                let [file, digest, into @ ..] = &fields[..] else { return None };
                Some(Self::Reading { file: file.clone(), digest: digest.clone(), into: into.to_vec() })
            }
            ("shape", fields) => {
                let [file, path, kind] = fields.try_into().ok()?;
                Some(Self::Shape { file, path, kind })
            }
            ("state", fields) => {
                let [aggregate, fold, path, kind] = fields.try_into().ok()?;
                Some(Self::State { aggregate, fold: fold.parse().ok()?, path, kind })
            }
            _ => None,
        }
    }
}

/// The lines of a lock file with their numbers, from 1; else what is wrong with them, each beginning with the number.
pub(super) fn parse(text: &str) -> Result<Vec<(usize, Line)>, Vec<String>> {
    let (mut lines, mut wrong) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.starts_with('#')) {
        let marker = ["<<<<<<<", "|||||||", "=======", ">>>>>>>"].iter().any(|marker| line.starts_with(marker));
        match Line::parse(line) {
            _ if marker => {
                wrong.push(format!("{number}: a merge conflict; keep the lines of both sides and remove the marker"));
            }
            None => wrong
                .push(format!("{number}: annals does not write such a line; take the file from version control again")),
            Some(line) => lines.push((number, line)),
        }
    }
    if wrong.is_empty() { Ok(lines) } else { Err(wrong) }
}
