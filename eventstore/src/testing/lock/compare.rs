//! What has changed between a lock file and today, and what of it may change.

use super::line::Line;
use super::now::{Now, raise};

/// Each begins with the number of a line, or with a space where there is none.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// What is new, or was replaced by the rules.
    pub(super) allowed: Vec<String>,
    /// What must not change, with what to do.
    pub(super) refused: Vec<String>,
}

/// What is allowed, or why it is refused; `None` if another line says so.
type Verdict = Option<Result<String, String>>;

pub(super) fn compare(locked: &[(usize, Line)], now: &Now) -> Changes {
    let compared = Compared { locked, now };
    let gone = locked.iter().filter(|(_, line)| !now.lines.contains(line));
    let gone = gone.filter_map(|(number, line)| Some((number.to_string(), compared.gone(line)?)));
    let new = now.lines.iter().filter(|line| !compared.locked().any(|other| other == *line));
    let new = new.filter_map(|line| Some((" ".to_owned(), compared.added(line)?)));
    let mut changes = Changes::default();
    let mut said = Vec::new();
    for (place, verdict) in gone.chain(new) {
        // What holds of a whole aggregate is said at its first line.
        if said.contains(&verdict) {
            continue;
        }
        let at = |what: &String| if place == " " { format!(" {what}") } else { format!("{place}: {what}") };
        match &verdict {
            Ok(allowed) => changes.allowed.push(at(allowed)),
            Err(refused) => changes.refused.push(at(refused)),
        }
        said.push(verdict);
    }
    changes
}

#[derive(Clone, Copy)]
struct Compared<'c> {
    locked: &'c [(usize, Line)],
    now: &'c Now,
}

impl<'c> Compared<'c> {
    fn locked(self) -> impl Iterator<Item = &'c Line> {
        self.locked.iter().map(|(_, line)| line)
    }

    /// About a line that is locked and would not be written today.
    fn gone(self, line: &Line) -> Verdict {
        let now = self.now;
        match line {
            Line::Payload { file, .. } => Some(Err(if has_payload(now.lines.iter(), file) {
                format!(
                    "`{file}` is not the payload that was locked; take both from version control again: what was stored never \
                     changes, and another example is another file"
                )
            } else {
                format!("`{file}` is missing from the corpus; put it back: stores hold such events")
            })),
            Line::Shape { file, .. } | Line::Reading { file, .. } if !has_payload(now.lines.iter(), file) => None,
            Line::Reading { file, into, .. } => Some(if into.iter().any(|stored| !now.present.contains(stored)) {
                Ok(format!("`{file}` is read as another version"))
            } else {
                Err(format!(
                    "`{file}` is read as another event than before; correct the steps from it. If it is meant, raise the \
                     `VERSION` of projections and the `fold` of aggregates that read it, and delete this line"
                ))
            }),
            Line::Shape { file, path, kind } => Some(match now.written.get(file) {
                None => Ok(format!("`{file}` is of a version that is not written any more")),
                Some(shape) => {
                    let is = kinds(now.lines.iter().filter_map(|line| line.kind_in_file(file, path)));
                    Err(format!("`{path}` of `{file}` was {kind}, and is {is}; {}", raise(shape)))
                }
            }),
            Line::Fold { aggregate, fold, .. } | Line::State { aggregate, fold, .. } => {
                match now.folds.get(aggregate.as_str()) {
                    None => Some(Err(format!(
                        "the aggregate `{aggregate}` is not compared any more; put it back into the list, or delete its lines \
                         if it is gone for good"
                    ))),
                    Some(present) if present > fold => Some(Ok(format!("`{aggregate}` has fold {present} now"))),
                    Some(present) if present < fold => Some(Err(format!(
                        "`{aggregate}` has fold {present}, but had {fold}; a fold's number only rises"
                    ))),
                    Some(_) => self.other_state(line),
                }
            }
        }
    }

    /// About a line of an aggregate with the same fold.
    fn other_state(self, line: &Line) -> Verdict {
        let now = self.now;
        match line {
            Line::Fold { aggregate, fold, .. } => {
                let files = self.files_with_another_state(aggregate);
                let after = match &files[..] {
                    [] => return None,
                    [one] => format!("`{one}`"),
                    [one, other] => format!("`{one}` and `{other}`"),
                    [first, more @ ..] => format!("`{first}` and {} more files", more.len()),
                };
                Some(Err(format!("the state of `{aggregate}` after {after} is another one, but {}", raise_fold(*fold))))
            }
            Line::State { aggregate, fold, path, .. } if self.is_corpus_whole() => {
                let was = kinds(self.locked().filter_map(|line| line.kind_in_state(aggregate, *fold, path)));
                let is = kinds(now.lines.iter().filter_map(|line| line.kind_in_state(aggregate, *fold, path)));
                Some(Err(format!(
                    "`{path}` in the state of `{aggregate}` was {was}, and is {is}, but {}",
                    raise_fold(*fold)
                )))
            }
            _ => None,
        }
    }

    /// About a line that would be written today and is not locked.
    fn added(self, line: &Line) -> Verdict {
        match line {
            Line::Payload { file, .. } => (!has_payload(self.locked(), file)).then(|| Ok(format!("`{file}` is new"))),
            Line::Shape { file, path, kind } => {
                let is_of_file = |line: &&Line| matches!(line, Line::Shape { file: of, .. } if of == file);
                // What was at the path before, if that is gone, is reported with the line that has it.
                let is_reported =
                    self.locked().any(|line| line.kind_in_file(file, path).is_some() && self.is_gone(line));
                let shape = self.now.written.get(file).filter(|_| self.locked().any(|line| is_of_file(&line)))?;
                (!is_reported).then(|| Err(format!("`{path}` of `{file}` is {kind}, which is new; {}", raise(shape))))
            }
            Line::Reading { file, .. } => {
                let is_of_file = |line: &&Line| matches!(line, Line::Reading { file: of, .. } if of == file);
                let is_reported = self.locked().filter(is_of_file).any(|line| self.is_gone(line));
                (!is_reported).then(|| Ok(format!("what `{file}` is read as is new")))
            }
            Line::Fold { aggregate, fold, file, .. } => {
                let is_listed = self.locked().any(
                    |line| matches!(line, Line::Fold { aggregate: a, file: f, .. } if a == aggregate && f == file),
                );
                (!is_listed).then(|| Ok(format!("the state of `{aggregate}` (fold {fold}) after `{file}` is new")))
            }
            Line::State { aggregate, fold, path, kind } => {
                let is_of = |a: &String, f: &u32| a == aggregate && f == fold;
                if !self.locked().any(|line| matches!(line, Line::State { aggregate: a, fold: f, .. } if is_of(a, f))) {
                    // As in a lock that was written before the paths of states were kept; a new fold is said already.
                    let is_old = self
                        .locked()
                        .any(|line| matches!(line, Line::Fold { aggregate: a, fold: f, .. } if is_of(a, f)));
                    return is_old
                        .then(|| Ok(format!("the paths in the state of `{aggregate}` (fold {fold}) are new")));
                }
                let is_reported = self
                    .locked()
                    .any(|line| line.kind_in_state(aggregate, *fold, path).is_some() && self.is_gone(line));
                // After the locked files the states are the same, so it is of a new file.
                let is_of_new_file = self.files_with_another_state(aggregate).is_empty();
                (!is_reported && !is_of_new_file).then(|| {
                    Err(format!(
                        "`{path}` in the state of `{aggregate}` is {kind}, which is new, but {}",
                        raise_fold(*fold)
                    ))
                })
            }
        }
    }

    fn is_gone(self, line: &Line) -> bool {
        !self.now.lines.contains(line)
    }

    /// The files after which an aggregate has another state than it had when they were locked, under the same fold.
    fn files_with_another_state(self, of: &str) -> Vec<&'c str> {
        let file = |line: &'c Line| match line {
            Line::Fold { aggregate, fold, file, .. }
                if aggregate == of
                    && self.now.folds.get(of) == Some(fold)
                    && has_payload(self.now.lines.iter(), file) =>
            {
                self.is_gone(line).then_some(file.as_str())
            }
            _ => None,
        };
        self.locked().filter_map(file).collect()
    }

    /// Whether every locked file is in the corpus.
    fn is_corpus_whole(self) -> bool {
        self.locked()
            .all(|line| !matches!(line, Line::Payload { file, .. } if !has_payload(self.now.lines.iter(), file)))
    }
}

impl Line {
    /// What the event of a file has at a path.
    fn kind_in_file(&self, of: &str, at: &str) -> Option<&str> {
        match self {
            Self::Shape { file, path, kind } if file == of && path == at => Some(kind),
            _ => None,
        }
    }

    /// What the states of an aggregate have at a path.
    fn kind_in_state(&self, of: &str, of_fold: u32, at: &str) -> Option<&str> {
        match self {
            Self::State { aggregate, fold, path, kind } if aggregate == of && *fold == of_fold && path == at => {
                Some(kind)
            }
            _ => None,
        }
    }
}

fn has_payload<'l>(mut lines: impl Iterator<Item = &'l Line>, file: &str) -> bool {
    lines.any(|line| matches!(line, Line::Payload { file: of, .. } if of == file))
}

fn kinds<'k>(kinds: impl Iterator<Item = &'k str>) -> String {
    let kinds: Vec<&str> = kinds.collect();
    if kinds.is_empty() { "gone".to_owned() } else { kinds.join(" or ") }
}

/// The remedy for another state.
fn raise_fold(fold: u32) -> String {
    format!("its fold is still {fold}; raise it: `fold = {}`", fold.saturating_add(1))
}
