//! How the app ends: with an error that says what is wrong and what to do, and never a password; and quietly if nobody reads
//! what it prints.

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

#[test]
fn what_cannot_work_is_refused_before_it_is_used() {
    for (arguments, level, message) in [
        (
            &["new-key", "--tenant", "alpha", "--role", "admin", "--customer", "bob"][..],
            "info",
            "leave `--customer` out",
        ),
        (&["--listen", "127.0.0.1:0"], "inof", "`log.level` is no level"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let mut app = Command::new(env!("CARGO_BIN_EXE_example-orders"));
        app.current_dir(folder.path()).env_remove("DATABASE_URL").env("ORDERS_LOG__LEVEL", level);
        let output = app.args(arguments).output().expect("it starts");
        let out = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && out.contains(message), "{out}");
    }
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_ends_the_program_quietly_and_keeps_what_was_stored() {
    use std::io::{BufRead, BufReader, Read};
    use std::process::Stdio;

    let folder = tempfile::tempdir().expect("a folder");
    for scene in
        [&["story"][..], &["on-account"], &["evolution"], &["--orders", "3"], &["dead-letters"], &["resilience"]]
    {
        let mut app = Command::new(env!("CARGO_BIN_EXE_example-orders"));
        app.arg("--db").arg(folder.path().join("orders.db")).args(scene).env_remove("DATABASE_URL");
        let mut child = app.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut first = String::new();
        // The pipe is closed when this reader is dropped, at the end of the statement.
        BufReader::with_capacity(1, child.stdout.take().expect("a pipe")).read_line(&mut first).expect("a line");
        let status = child.wait().expect("it ends");
        let mut errors = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut errors).expect("text");
        assert!(status.success() && !first.is_empty(), "{scene:?}: {status}, {errors}");
        assert_eq!(errors, "", "{scene:?}");
    }
}

/// A file of settings that is not there was not even missed.
#[test]
fn a_flag_that_nobody_would_look_at_is_refused() {
    for arguments in
        [&["--settings", "none.toml", "story"][..], &["--listen", "127.0.0.1:0", "story"], &["--orders", "3", "story"]]
    {
        let mut app = Command::new(env!("CARGO_BIN_EXE_example-orders"));
        let output = app.args(arguments).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(arguments[0]) && said.contains("leave"), "{said}");
    }
}
