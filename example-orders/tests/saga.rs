//! Checkouts in real processes, one of which ends in the middle, and by reactors: what is printed is the same each time, on both
//! databases.

use std::process::Command;

/// What the scene prints, without the next steps.
fn played(scene: &str, set: impl FnOnce(&mut Command) -> &mut Command) -> String {
    let services = tempfile::tempdir().expect("a folder");
    let mut app = Command::new(env!("CARGO_BIN_EXE_example-orders"));
    let app = set(app.env_remove("DATABASE_URL")).arg("--services").arg(services.path());
    let output = app.args(["--first", "1001", scene]).output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    let printed = String::from_utf8(output.stdout).expect("text");
    let (scene, _) = printed.split_once("\nThe events").expect("the next steps");
    scene.to_owned()
}

#[test]
fn checkouts_end_completed_undone_or_by_a_person_and_the_text_is_the_golden_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("orders.db");
    insta::assert_snapshot!("saga", played("saga", |app| app.arg("--db").arg(file)));
}

#[tokio::test]
async fn checkouts_end_completed_undone_or_by_a_person_and_the_text_is_the_golden_one_on_postgresql() {
    let scratch = annals_scratch::Database::empty().await;
    let printed = played("saga", |app| app.env("DATABASE_URL", scratch.url()));
    let (_, scene) = printed.split_once("\n\n").expect("the note about the database");
    insta::assert_snapshot!("saga", scene);
}

#[test]
fn flows_are_completed_or_undone_and_the_text_is_the_golden_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("orders.db");
    insta::assert_snapshot!("choreography", played("choreography", |app| app.arg("--db").arg(file)));
}

#[tokio::test]
async fn flows_are_completed_or_undone_and_the_text_is_the_golden_one_on_postgresql() {
    let scratch = annals_scratch::Database::empty().await;
    let printed = played("choreography", |app| app.env("DATABASE_URL", scratch.url()));
    let (_, scene) = printed.split_once("\n\n").expect("the note about the database");
    insta::assert_snapshot!("choreography", scene);
}
