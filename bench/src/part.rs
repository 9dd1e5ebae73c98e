//! Another process of the same measurement, which answers a line with a line.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::Fault;

/// The process. It is killed when this is dropped.
pub(crate) struct Part {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Part {
    /// Starts this program with other arguments, and waits until it says that it is ready.
    pub(crate) async fn start(arguments: &[String]) -> Result<Self, Fault> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let input = child.stdin.take().ok_or("the process has no input")?;
        let output = child.stdout.take().ok_or("the process has no output")?;
        let mut part = Self { child, input, output: BufReader::new(output).lines() };
        part.answer().await?;
        Ok(part)
    }

    pub(crate) async fn tell(&mut self, line: &str) -> Result<(), Fault> {
        Ok(self.input.write_all(format!("{line}\n").as_bytes()).await?)
    }

    pub(crate) async fn answer(&mut self) -> Result<String, Fault> {
        Ok(self.output.next_line().await?.ok_or("a process has ended too early")?)
    }

    pub(crate) async fn kill(mut self) -> Result<(), Fault> {
        Ok(self.child.kill().await?)
    }

    /// Ends its input, and waits until it has exited.
    pub(crate) async fn exit(self) -> Result<(), Fault> {
        let Self { mut child, input, output } = self;
        drop(input);
        let status = child.wait().await?;
        drop(output);
        if status.success() { Ok(()) } else { Err(format!("a process has failed: {status}").into()) }
    }
}
