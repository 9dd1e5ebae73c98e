//! What has changed between a lock file and today, and what of it may change.

use super::line::Line;
use super::now::Now;
use crate::event::EventShape;

/// Each begins with the number of a line, or with a space where there is none.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// What is new, or was replaced by the rules.
    pub(super) allowed: Vec<String>,
    /// What must not change, with what to do.
    pub(super) refused: Vec<String>,
}

pub(super) fn compare(locked: &[(usize, Line)], now: &Now) -> Changes {
    let mut changes = Changes::default();
    for (number, line) in locked.iter().filter(|(_, line)| !now.lines.contains(line)) {
        match gone(line, now) {
            Some(Ok(allowed)) => changes.allowed.push(format!("{number}: {allowed}")),
            Some(Err(refused)) => changes.refused.push(format!("{number}: {refused}")),
            None => {}
        }
    }
    for line in now.lines.iter().filter(|line| !locked.iter().any(|(_, other)| other == *line)) {
        match new(line, locked, now) {
            Some(Ok(allowed)) => changes.allowed.push(format!(" {allowed}")),
            Some(Err(refused)) => changes.refused.push(format!(" {refused}")),
            None => {}
        }
    }
    changes
}

/// What is allowed, or why it is refused; `None` if another line says so.
type Verdict = Option<Result<String, String>>;

/// About a line that is locked and would not be written today.
fn gone(line: &Line, now: &Now) -> Verdict {
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
                "`{file}` is read as another event than before; correct the steps from it. If it is meant, raise the `VERSION` \
                 of projections and the `fold` of aggregates that read it, and delete this line"
            ))
        }),
        Line::Shape { file, path, kind } => Some(match now.written.get(file) {
            None => Ok(format!("`{file}` is of a version that is not written any more")),
            Some(shape) => {
                Err(format!("`{path}` of `{file}` was {kind}, and is {}; {}", kinds(now, file, path), raise(shape)))
            }
        }),
        Line::Fold { aggregate, fold, file, .. } => match now.folds.get(aggregate.as_str()) {
            None => Some(Err(format!(
                "the aggregate `{aggregate}` is not compared any more; put it back into the list, or delete its lines if it is \
                 gone for good"
            ))),
            Some(present) if present > fold => Some(Ok(format!("`{aggregate}` has fold {present} now"))),
            Some(present) if present < fold => {
                Some(Err(format!("`{aggregate}` has fold {present}, but had {fold}; a fold's number only rises")))
            }
            Some(_) if !has_payload(now.lines.iter(), file) => None,
            Some(_) => Some(Err(format!(
                "the state of `{aggregate}` after `{file}` is another one, but its fold is still {fold}; raise it: `fold = {}`",
                fold.saturating_add(1)
            ))),
        },
    }
}

/// About a line that would be written today and is not locked.
fn new(line: &Line, locked: &[(usize, Line)], now: &Now) -> Verdict {
    let mut lines = locked.iter().map(|(_, line)| line);
    match line {
        Line::Payload { file, .. } => (!has_payload(lines, file)).then(|| Ok(format!("`{file}` is new"))),
        Line::Shape { file, path, kind } => {
            let of_file: Vec<&Line> =
                lines.filter(|line| matches!(line, Line::Shape { file: of, .. } if of == file)).collect();
            // What was at the path before, if that is gone, is reported with the line that has it.
            let is_reported = of_file
                .iter()
                .any(|line| matches!(line, Line::Shape { path: at, .. } if at == path) && !now.lines.contains(*line));
            let shape = now.written.get(file).filter(|_| !of_file.is_empty() && !is_reported)?;
            Some(Err(format!("`{path}` of `{file}` is {kind}, which is new; {}", raise(shape))))
        }
        Line::Reading { file, .. } => {
            let is_reported = lines
                .any(|line| matches!(line, Line::Reading { file: of, .. } if of == file) && !now.lines.contains(line));
            (!is_reported).then(|| Ok(format!("what `{file}` is read as is new")))
        }
        Line::Fold { aggregate, fold, file, .. } => {
            let is_listed = lines
                .any(|line| matches!(line, Line::Fold { aggregate: a, file: f, .. } if a == aggregate && f == file));
            (!is_listed).then(|| Ok(format!("the state of `{aggregate}` (fold {fold}) after `{file}` is new")))
        }
    }
}

fn has_payload<'l>(mut lines: impl Iterator<Item = &'l Line>, file: &str) -> bool {
    lines.any(|line| matches!(line, Line::Payload { file: of, .. } if of == file))
}

/// What is at a path of a file today.
fn kinds(now: &Now, file: &str, path: &str) -> String {
    let kind = |line: &Line| match line {
        Line::Shape { file: of, path: at, kind } if of == file && at == path => Some(kind.clone()),
        _ => None,
    };
    let kinds: Vec<String> = now.lines.iter().filter_map(kind).collect();
    if kinds.is_empty() { "gone".to_owned() } else { kinds.join(" or ") }
}

/// The remedy for another shape.
fn raise(EventShape { name, version, rust_name }: &EventShape) -> String {
    let next = version.saturating_add(1);
    format!(
        "raise the version of {rust_name} (`{name}`) to {next}, and add an upcast from version {version}: a type in \
         `upcast(..)`, or a step on JSON"
    )
}
