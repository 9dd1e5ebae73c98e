//! Runs a test again in another process, which may have fewer privileges or its own namespace.

use std::process::Command;

/// Set for a test that was started by [`again`].
const AGAIN: &str = "ANNALS_TEST_AGAIN";

/// Whether this process was started by [`again`].
#[must_use]
pub fn is_again() -> bool {
    std::env::var_os(AGAIN).is_some()
}

/// The command that runs the test `name` of the module `module_path!()` through a program such as `setpriv`, if any.
///
/// # Panics
/// If the module is a crate's root.
#[must_use]
pub fn again(through: &[&str], module: &str, name: &str) -> Command {
    let (_, module) = module.split_once("::").expect("the crate's name is first");
    let test = std::env::current_exe().expect("it is running");
    let mut command = match through.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments).arg(test);
            command
        }
        None => Command::new(test),
    };
    command.args(["--exact", &format!("{module}::{name}"), "--nocapture"]).env(AGAIN, "1");
    command
}

/// Runs that command.
///
/// # Errors
/// The output, if the test did not pass.
///
/// # Panics
/// As [`again`].
pub fn run_again(through: &[&str], module: &str, name: &str) -> Result<(), String> {
    let done = again(through, module, name).output();
    let done = done.map_err(|error| format!("{through:?} cannot be run, install util-linux: {error}"))?;
    let printed = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    // With a name that no test has, the process would succeed without running anything.
    if done.status.success() && printed.contains("1 passed") { Ok(()) } else { Err(format!("{through:?}: {printed}")) }
}
