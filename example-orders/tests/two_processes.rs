//! Two real processes: what the scene prints is the same each time, on both databases, and nothing is left running.

use std::process::Command;

/// Which two read models the second process gets depends on who is late; how many it gets does not.
const READ_MODELS: [&str; 6] =
    ["order_list", "order_detail", "daily_sales", "shop_sales", "customer_statement", "customers"];

/// What the scene prints, each read model as `one`, without the next steps.
fn played(set: impl FnOnce(&mut Command) -> &mut Command) -> String {
    let mut app = Command::new(env!("CARGO_BIN_EXE_example-orders"));
    let output =
        set(app.env_remove("DATABASE_URL")).args(["--first", "1001", "two-processes"]).output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    let printed = String::from_utf8(output.stdout).expect("text");
    let (scene, _) = printed.split_once("\nThe events").expect("the next steps");
    READ_MODELS.iter().fold(scene.to_owned(), |text, name| text.replace(name, "one"))
}

#[test]
fn a_process_that_is_killed_is_replaced_and_the_text_is_the_golden_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("orders.db");
    insta::assert_snapshot!("two_processes", played(|app| app.arg("--db").arg(file)));
}

#[tokio::test]
async fn a_process_that_is_killed_is_replaced_and_the_text_is_the_golden_one_on_postgresql() {
    let scratch = annals_scratch::Database::empty().await;
    let printed = played(|app| app.env("DATABASE_URL", scratch.url()));
    let (_, scene) = printed.split_once("\n\n").expect("the note about the database");
    insta::assert_snapshot!("two_processes", scene);
}
