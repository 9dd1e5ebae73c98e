//! What an event type reads, and the rules for its steps. All of it runs while the user's crate is compiled.

use super::message::Message;
use super::step::{JsonUpcaster, Step, Stored};
use crate::derived::same_text;
use crate::event::EventShape;

/// Every name and version that is read: those that are written (`shapes`), those that typed steps begin at (`typed`), and those
/// of `steps`. They are `N` together.
///
/// # Panics
/// While it compiles, if a step breaks a rule; the message names it and the fix.
#[must_use]
pub const fn reads<const N: usize>(
    shapes: &[EventShape],
    typed: &[EventShape],
    steps: &[JsonUpcaster],
) -> [EventShape; N] {
    let rules = Rules { shapes, typed, steps };
    rules.check_each_step();
    rules.check_that_every_chain_ends::<N>();
    rules.check_that_every_chain_is_whole();
    let mut all = [EventShape { name: "", version: 1, rust_name: "" }; N];
    let mut at = 0;
    while at < N {
        all[at] = if at < shapes.len() {
            shapes[at]
        } else if at < shapes.len() + typed.len() {
            typed[at - shapes.len()]
        } else {
            let (name, version) = steps[at - shapes.len() - typed.len()].from;
            EventShape { name, version, rust_name: "a step on JSON" }
        };
        at += 1;
    }
    all
}

struct Rules<'s> {
    shapes: &'s [EventShape],
    typed: &'s [EventShape],
    steps: &'s [JsonUpcaster],
}

impl Rules<'_> {
    const fn check_each_step(&self) {
        let mut at = 0;
        while at < self.steps.len() {
            let step = &self.steps[at];
            self.check_beginning(at, step.from);
            self.check_outputs(step);
            at += 1;
        }
    }

    /// A step begins at one version that is not written any more, and no other begins there: a stored event has one meaning.
    const fn check_beginning(&self, at: usize, from: Stored) {
        if from.1 == 0 {
            refuse(Message::new("a step begins at ").stored(from).text("; schema versions count from 1"));
        }
        if let Some(written) = written_as(self.shapes, from.0)
            && from.1 >= written
        {
            let message = Message::new("a step begins at ").stored(from).text(", but the type writes ");
            refuse(
                message.stored((from.0, written)).text(" itself; raise `version` above the step, or remove the step"),
            );
        }
        if has(self.typed, from) || begins(self.steps, at, from) {
            let message = Message::new("two steps begin at ").stored(from);
            refuse(message.text("; keep one of them, in `upcast(..)` or in the list of steps"));
        }
    }

    /// Whatever a step gives is an event that the type writes, or another step begins there.
    const fn check_outputs(&self, step: &JsonUpcaster) {
        let mut number = 0;
        while let Some(to) = step.output(number) {
            if !has(self.shapes, to) && !has(self.typed, to) && !begins(self.steps, self.steps.len(), to) {
                let message = Message::new("the step from ").stored(step.from).text(" gives ").stored(to);
                let message =
                    message.text(", which the type does not write, and no step begins there; add a step from ");
                refuse(message.stored(to).text(", or correct the name or version that it gives"));
            }
            if let Step::Split(into, _) = step.step {
                let mut before = 0;
                while before < number {
                    if same_text(into[before].0, to.0) {
                        let message = Message::new("the split of ").stored(step.from).text(" lists `").text(to.0);
                        refuse(message.text("` twice; list each name once, also where it gives several events of it"));
                    }
                    before += 1;
                }
            }
            number += 1;
        }
    }

    /// From every step there is a way to the present in a bounded number of steps. A list of `n` steps without a cycle needs at
    /// most `n` rounds, in each of which at least one more step is known to end.
    const fn check_that_every_chain_ends<const N: usize>(&self) {
        let mut ends = [false; N];
        let mut round = 0;
        while round < self.steps.len() {
            let mut at = 0;
            while at < self.steps.len() {
                ends[at] = ends[at] || self.outputs_end(&self.steps[at], &ends);
                at += 1;
            }
            round += 1;
        }
        let mut at = 0;
        while at < self.steps.len() {
            if !ends[at] {
                let message = Message::new("the steps from ").stored(self.steps[at].from);
                refuse(message.text(" come back to where they begin; remove one of them"));
            }
            at += 1;
        }
    }

    const fn outputs_end(&self, step: &JsonUpcaster, ends: &[bool]) -> bool {
        let mut number = 0;
        while let Some(to) = step.output(number) {
            let mut at = 0;
            while at < self.steps.len() {
                if is(self.steps[at].from, to) && !ends[at] {
                    return false;
                }
                at += 1;
            }
            number += 1;
        }
        true
    }

    /// Where old versions of a name are read, all of them are: from version 1, or from the one with which another name goes on.
    const fn check_that_every_chain_is_whole(&self) {
        let mut at = 0;
        while at < self.shapes.len() {
            self.check_versions((self.shapes[at].name, self.shapes[at].version));
            at += 1;
        }
        let mut at = 0;
        while at < self.steps.len() {
            // The highest version of a name that is not written at all; at its other versions nothing is found.
            if written_as(self.shapes, self.steps[at].from.0).is_none() {
                self.check_versions(self.steps[at].from);
            }
            at += 1;
        }
    }

    /// Checks the versions of a name below `top`.
    const fn check_versions(&self, top: Stored) {
        let mut lowest = 1;
        while lowest < top.1 && !self.is_old((top.0, lowest)) {
            lowest += 1;
        }
        let first = if self.is_given_by_another_name((top.0, lowest)) { lowest } else { 1 };
        let mut older = first;
        // Without any older version, it is the type's choice to begin with this one.
        while lowest < top.1 && older < top.1 {
            if !self.is_old((top.0, older)) {
                let message = Message::new("no step begins at ").stored((top.0, older));
                let message = message
                    .text(", though steps begin at other old versions; add its type to `upcast(..)`, or a step to ");
                refuse(message.text("the list of steps"));
            }
            older += 1;
        }
    }

    const fn is_old(&self, stored: Stored) -> bool {
        has(self.typed, stored) || begins(self.steps, self.steps.len(), stored)
    }

    const fn is_given_by_another_name(&self, stored: Stored) -> bool {
        let mut at = 0;
        while at < self.steps.len() {
            let step = &self.steps[at];
            let mut number = 0;
            while let Some(to) = step.output(number) {
                if is(to, stored) && !same_text(step.from.0, stored.0) {
                    return true;
                }
                number += 1;
            }
            at += 1;
        }
        false
    }
}

const fn refuse(message: Message) -> ! {
    panic!("{}", message.as_str())
}

const fn is(one: Stored, other: Stored) -> bool {
    one.1 == other.1 && same_text(one.0, other.0)
}

const fn has(shapes: &[EventShape], stored: Stored) -> bool {
    let mut at = 0;
    while at < shapes.len() {
        if is((shapes[at].name, shapes[at].version), stored) {
            return true;
        }
        at += 1;
    }
    false
}

/// Whether one of the first `count` steps begins there.
const fn begins(steps: &[JsonUpcaster], count: usize, stored: Stored) -> bool {
    let mut at = 0;
    while at < count {
        if is(steps[at].from, stored) {
            return true;
        }
        at += 1;
    }
    false
}

/// The version in which the type writes events of this name.
const fn written_as(shapes: &[EventShape], name: &str) -> Option<u32> {
    let mut at = 0;
    while at < shapes.len() {
        if same_text(shapes[at].name, name) {
            return Some(shapes[at].version);
        }
        at += 1;
    }
    None
}
