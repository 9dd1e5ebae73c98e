//! Each file below `tests/ui` makes one mistake; beside it stands what the user reads.

/// One run for all files, so that the compiler is started once.
#[test]
fn every_mistake_is_refused_at_its_place_with_its_fix() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*/*.rs");
}
