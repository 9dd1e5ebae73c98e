//! Running a test once more, in a process that may do less or lives in a world of its own.

use std::process::Command;

/// Says to a test that it was started by [`run_again`].
const AGAIN: &str = "ANNALS_TEST_AGAIN";

/// Whether this process was started by [`run_again`].
pub(super) fn is_again() -> bool {
    std::env::var_os(AGAIN).is_some()
}

/// Runs the test `name` of the module `module_path!()` through a program such as `setpriv`. If it does not pass there,
/// gives what was said.
pub(super) fn run_again(through: &[&str], module: &str, name: &str) -> Result<(), String> {
    let (program, arguments) = through.split_first().expect("a program is named");
    let (_, module) = module.split_once("::").expect("the crate comes first");
    let done = Command::new(program)
        .args(arguments)
        .arg(std::env::current_exe().expect("it is running"))
        .args(["--exact", &format!("{module}::{name}"), "--nocapture"])
        .env(AGAIN, "1")
        .output()
        .map_err(|error| format!("`{program}` cannot be run, install util-linux: {error}"))?;
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    // A name that is no test's would pass with nothing run.
    if done.status.success() && said.contains("1 passed") { Ok(()) } else { Err(format!("{through:?}: {said}")) }
}
