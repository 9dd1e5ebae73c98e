//! Errors about a caller's input, used by the checks of every type.

/// Input that no store accepts: the field, the problem, and the fix.
///
/// ```
/// use annals_eventstore::Tenant;
///
/// let invalid = Tenant::new("").unwrap_err();
/// assert_eq!(invalid.field, "tenant");
/// assert_eq!(invalid.to_string(), "`tenant` is empty; give it at least one character");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {problem}; {fix}")]
pub struct Invalid {
    /// Where the fault is: a parameter, or a path such as `payload.lines[2].price`.
    pub field: String,
    /// The problem, as the rest of a sentence that begins with the field.
    pub problem: String,
    /// What to do instead.
    pub fix: String,
}

impl Invalid {
    /// An error about `field`; its text is "`field` problem; fix".
    pub fn new(field: impl Into<String>, problem: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into(), fix: fix.into() }
    }
}
