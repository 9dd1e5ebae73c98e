//! The errors of an app that cannot open its store: what is wrong and what to do, and never a password.

use std::process::Command;

#[test]
fn a_database_that_cannot_be_opened_is_named_without_its_password() {
    for (url, message) in [
        ("mysql://app:secret@localhost/shop", "make it `postgres://user@host:5432/database`"),
        ("postgres://app:secret@127.0.0.1:1/shop", "postgres://127.0.0.1:1/shop"),
        ("postgres://app:secret@[/shop", "is not a URL of a PostgreSQL database"),
    ] {
        let mut app = Command::new(env!("CARGO_BIN_EXE_example-orders"));
        let output = app.env("DATABASE_URL", url).output().expect("it starts");
        let out = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{out}");
        assert!(out.contains(message), "{out}");
        assert!(!out.contains("secret"), "{out}");
    }
}
