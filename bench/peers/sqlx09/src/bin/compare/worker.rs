//! One store at work, in a process of its own.

use std::process::Stdio;
use std::time::Duration;

use annals_peers::{Answer, Fault, Order, Setup};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::peers::Peer;

/// How long a store may take for an order.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// The process. It is killed when this is dropped.
pub struct Worker {
    pub peer: Peer,
    pub setup: Setup,
    /// The table of its events, on PostgreSQL.
    pub table: String,
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Worker {
    /// Starts it, and waits until the store is open.
    pub async fn start(peer: Peer, setup: Setup) -> Result<Self, Fault> {
        let mut command = Command::new(peer.program()?);
        command.arg(peer.name).arg(serde_json::to_string(&setup)?);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let input = child.stdin.take().ok_or("the process has no input")?;
        let output = BufReader::new(child.stdout.take().ok_or("the process has no output")?).lines();
        let mut worker = Self { peer, setup, table: String::new(), _child: child, input, output };
        match worker.answer().await? {
            Answer::Ready { table } => worker.table = table,
            other => return Err(format!("`{}` does not open: {other:?}", peer.name).into()),
        }
        Ok(worker)
    }

    /// Has it do something.
    pub async fn follow(&mut self, order: &Order) -> Result<Answer, Fault> {
        self.input.write_all(format!("{}\n", serde_json::to_string(order)?).as_bytes()).await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Answer, Fault> {
        let line = match tokio::time::timeout(MAX_WAIT, self.output.next_line()).await {
            Ok(line) => line?.ok_or("the process has ended")?,
            Err(_) => return Err(format!("no answer within {MAX_WAIT:?}").into()),
        };
        Ok(serde_json::from_str(&line)?)
    }
}
