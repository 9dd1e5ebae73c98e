//! PROMISES.md names tests that exist.

use std::fs;
use std::path::{Path, PathBuf};

/// Every Rust file of the workspace.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_test_and_file_that_a_promise_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(root, &mut files);
    // Clauses of the conformance suite and runner tests are functions too, those of macros are named in lists.
    let code: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let promises = fs::read_to_string(root.join("tests/PROMISES.md")).unwrap();
    let missing: Vec<&str> = promises
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|name| match name.strip_suffix(".rs") {
            Some(_) => !files.iter().any(|file| file.ends_with(name)),
            None => {
                name.matches('_').count() > 2
                    && !code.contains(&format!("{name}("))
                    && !code.contains(&format!("{name},"))
            }
        })
        .collect();
    assert_eq!(missing, [""; 0]);
}
