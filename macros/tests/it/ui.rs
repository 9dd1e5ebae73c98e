//! Each file below `tests/ui` has one mistake; the message is in the file beside it.

/// One run for all files, so that the compiler is started once.
#[test]
fn every_mistake_is_reported_at_its_position_with_its_fix() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*/*.rs");
}
