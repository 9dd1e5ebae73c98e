//! Which calls fail and where the process ends in one run.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::event::Direction;

/// A moment of a run at which something else than usual may happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// A call is made.
    Call { step: String, direction: Direction, attempt: u32 },
    /// A person is asked for approval.
    Ask { step: String, limited: bool },
    /// Something is appended to the stream of the instance.
    Append,
}

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Usual,
    Refused,
    Transient,
    /// Nobody answers in time.
    Unanswered,
    /// The call has its effect, and no answer comes.
    LostAnswer,
    /// The call has no effect, and no answer comes.
    LostCall,
    /// The call, or the answer of a person, arrives twice.
    Twice,
    CrashBefore,
    CrashAfter,
}

const OF_CALLS: [Choice; 6] =
    [Choice::Usual, Choice::Refused, Choice::Transient, Choice::LostAnswer, Choice::LostCall, Choice::Twice];
const OF_ASKS: [Choice; 4] = [Choice::Usual, Choice::Refused, Choice::Twice, Choice::Unanswered];
const OF_APPENDS: [Choice; 3] = [Choice::Usual, Choice::CrashBefore, Choice::CrashAfter];

impl Point {
    pub(crate) fn choices(&self) -> &'static [Choice] {
        match self {
            Self::Call { .. } => &OF_CALLS,
            Self::Ask { limited: true, .. } => &OF_ASKS,
            Self::Ask { limited: false, .. } => &OF_ASKS[..3],
            Self::Append => &OF_APPENDS,
        }
    }

    /// Whether a choice is one more disturbance, of which a run has few. The outcomes of first calls and of approvals are not: all their
    /// combinations are tried.
    pub(crate) fn disturbs(&self, choice: Choice) -> bool {
        match self {
            Self::Call { direction: Direction::Do, attempt: 1, .. } | Self::Ask { .. } => choice == Choice::Twice,
            _ => true,
        }
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call { step, direction, attempt } => write!(f, "call {attempt} of `{step}` {direction}"),
            Self::Ask { step, .. } => write!(f, "approval of `{step}`"),
            Self::Append => f.write_str("append"),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Usual => "as usual",
            Self::Refused => "is refused",
            Self::Transient => "fails",
            Self::Unanswered => "is not answered in time",
            Self::LostAnswer => "has its effect, and its answer is lost",
            Self::LostCall => "is lost",
            Self::Twice => "arrives twice",
            Self::CrashBefore => "the process ends before it",
            Self::CrashAfter => "the process ends after it",
        })
    }
}

/// The points of a run at which something unusual happens, by their number, and which of the point's choices it is.
/// As text: `3:1 7:2`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Schedule(pub(super) BTreeMap<usize, usize>);

impl Schedule {
    pub(crate) fn with(&self, point: usize, choice: usize) -> Self {
        let mut choices = self.0.clone();
        choices.insert(point, choice);
        Self(choices)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let choices: Vec<_> = self.0.iter().map(|(point, choice)| format!("{point}:{choice}")).collect();
        f.write_str(&choices.join(" "))
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let choice = |word: &str| {
            let (point, choice) = word.split_once(':')?;
            Some((point.parse().ok()?, choice.parse().ok()?))
        };
        let wrong = |word: &str| format!("`{word}` is not `point:choice`");
        text.split_whitespace().map(|word| choice(word).ok_or_else(|| wrong(word))).collect::<Result<_, _>>().map(Self)
    }
}
