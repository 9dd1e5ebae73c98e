//! Reading a stored event through the steps of its type.

use super::step::{JsonUpcaster, Step, StepError, Stored};
use crate::contained::contained;
use crate::derived::unknown_shape;
use crate::error::DecodeError;
use crate::event::Event;
use crate::parts::Parts;
use crate::payload::Payload;

/// Reads a payload as a single event: one that is written today, or by typed steps.
type ReadOne<E> = fn(&str, u32, &Payload) -> Result<E, DecodeError>;

/// What a stored event is read as, by the steps on JSON as far as there are any, and then by `one`.
///
/// # Errors
/// [`DecodeError`] if the name or the version is none of [`Event::READS`], the payload does not fit, or a step fails.
pub fn read_stored<E: Event>(
    steps: &'static [JsonUpcaster],
    name: &str,
    schema_version: u32,
    payload: &Payload,
    one: ReadOne<E>,
) -> Result<Parts<E>, DecodeError> {
    if !E::READS.iter().any(|shape| shape.version == schema_version && shape.name == name) {
        return Err(unknown_shape(E::READS, name, schema_version));
    }
    match step_from(steps, name, schema_version) {
        None => one(name, schema_version, payload).map(Parts::one),
        Some(step) => {
            let mut parts = Vec::new();
            follow(steps, step, payload, one, &mut parts)?;
            Ok(parts.into())
        }
    }
}

/// Takes `payload` through `step`, and each part that it gives through the rest of the chain. It ends, because the steps have
/// no cycle.
fn follow<E>(
    steps: &'static [JsonUpcaster],
    step: &JsonUpcaster,
    payload: &Payload,
    one: ReadOne<E>,
    parts: &mut Vec<E>,
) -> Result<(), DecodeError> {
    for ((name, version), payload) in step.run(payload).map_err(|source| step.failed(source))? {
        match step_from(steps, name, version) {
            Some(next) => follow(steps, next, &payload, one, parts)?,
            None => parts.push(one(name, version, &payload).map_err(|error| match error {
                later @ DecodeError::Upcast { .. } => later,
                unfit => {
                    let what = format!("what it gave as `{name}` version {version} does not fit: {}", unfit.reason());
                    step.failed(what.into())
                }
            })?),
        }
    }
    Ok(())
}

fn step_from(steps: &'static [JsonUpcaster], name: &str, version: u32) -> Option<&'static JsonUpcaster> {
    steps.iter().find(|step| step.from.1 == version && step.from.0 == name)
}

impl JsonUpcaster {
    /// What it makes of a payload, in order.
    fn run(&self, payload: &Payload) -> Result<Vec<(Stored, Payload)>, StepError> {
        match self.step {
            Step::Change(change) => {
                let value = json(payload)?;
                let changed = contained(|| change(value))?;
                Ok(vec![((self.from.0, self.from.1 + 1), Payload::of(&changed)?)])
            }
            Step::Rename(to) => Ok(vec![(to, payload.clone())]),
            Step::Split(into, split) => {
                let value = json(payload)?;
                let parts = contained(|| split(value))?;
                let declared = |(name, value): (&'static str, _)| {
                    let to = into.iter().find(|to| to.0 == name);
                    let to =
                        to.ok_or_else(|| format!("it gave `{name}`, which it does not list; add it to the split"))?;
                    Ok((*to, Payload::of(&value)?))
                };
                parts.into_iter().map(declared).collect()
            }
            Step::Drop => Ok(Vec::new()),
        }
    }

    fn failed(&self, source: StepError) -> DecodeError {
        let outputs = (0..).map_while(|number| self.output(number));
        let outputs: Vec<_> = outputs.map(|(name, version)| format!("`{name}` version {version}")).collect();
        let to = if outputs.is_empty() { "nothing".to_owned() } else { outputs.join(", ") };
        DecodeError::Upcast { name: self.from.0.to_owned(), version: self.from.1, to, source }
    }
}

/// The payload as a value of serde_json. A number that it would round is an error: the step would change what nobody asked it to.
fn json(payload: &Payload) -> Result<serde_json::Value, StepError> {
    let value = payload.read()?;
    if Payload::of(&value)? == *payload {
        Ok(value)
    } else {
        Err("the payload has a number that `serde_json::Value` rounds; use `upcast(..)` with a type that holds it"
            .into())
    }
}

/// A typed step: from the schema version `version` of `name` to the next.
///
/// # Errors
/// [`DecodeError::Upcast`] if it fails or panics.
pub fn convert<A, B>(name: &'static str, version: u32, value: A) -> Result<B, DecodeError>
where
    B: TryFrom<A>,
    B::Error: Into<StepError>,
{
    contained(|| B::try_from(value).map_err(Into::into)).map_err(|source| DecodeError::Upcast {
        name: name.to_owned(),
        version,
        to: format!("version {}", u64::from(version) + 1),
        source,
    })
}
