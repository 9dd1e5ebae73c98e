//! How the coordinator and the other processes communicate: instructions on standard input, messages on standard output,
//! both as JSON lines. This file has both ends.

use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::fact::Wanted;
use crate::progress::{Progress, ReaderProgress, Tally};
use crate::{Fault, readers, writers};

/// What one process does; the argument it is started with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Part {
    Writers {
        folder: PathBuf,
        process: usize,
        seed: u64,
        /// The numbers of its writers.
        writers: Vec<u32>,
    },
    Readers {
        folder: PathBuf,
        seed: u64,
        readers: Vec<ReaderPlan>,
    },
}

/// How one reader reads.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct ReaderPlan {
    pub(crate) number: usize,
    pub(crate) method: Method,
    pub(crate) wanted: Wanted,
}

/// Which of the library's reads a reader uses, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Method {
    Pages,
    Subscription,
    ReadAll,
    /// Its own query: everything after the last position it has seen.
    Naive,
    /// Page by page in the coordinator's process; measures how long it waits.
    Measure,
}

/// From the coordinator to a process of writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Instruction {
    /// Finish running transactions and begin none.
    Pause,
    Resume,
    /// The writers with the highest rate wait for the readers.
    Slow,
    /// They no longer wait.
    Fast,
    /// Finish, and exit.
    End,
}

/// From a process to the coordinator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// What its writers have done so far.
    Wrote(Tally),
    /// No transaction is running any more.
    Paused,
    /// The progress of one of its readers.
    Read(ReaderProgress),
    /// It cannot continue, and why.
    Failed(String),
}

/// An error with its causes.
pub(crate) fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Runs one process of a run. Only the coordinator starts it.
pub(crate) async fn run_part(part: &str) -> Result<(), Fault> {
    let done = match serde_json::from_str(part)? {
        Part::Writers { folder, process, seed, writers } => {
            writers::run(&folder, process, seed, &writers, instructions()).await
        }
        Part::Readers { folder, seed, readers } => readers::run(&folder, seed, readers, instructions()).await,
    };
    if let Err(error) = &done {
        send(&Message::Failed(error_chain(&**error)))?;
    }
    done
}

/// Sends a message to the coordinator.
pub(crate) fn send(message: &Message) -> Result<(), Fault> {
    let mut out = std::io::stdout().lock();
    out.write_all(json_line(message)?.as_bytes())?;
    Ok(out.flush()?)
}

/// The coordinator's instructions. The channel closes when the coordinator has exited.
fn instructions() -> mpsc::Receiver<Instruction> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let Ok(instruction) = serde_json::from_str(&line) else { return };
            if sender.send(instruction).await.is_err() {
                return;
            }
        }
    });
    receiver
}

fn json_line(value: &impl Serialize) -> serde_json::Result<String> {
    serde_json::to_string(value).map(|line| line + "\n")
}

/// A process as the coordinator sees it. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    instructions: mpsc::Sender<Instruction>,
    paused: mpsc::Receiver<()>,
    /// Ends after the last message.
    listening: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts a process for this part. `number` is the number of a process of writers.
    pub(crate) fn start(part: &Part, number: usize, progress: &Arc<Progress>) -> Result<Self, Fault> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--part", &serde_json::to_string(part)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().ok_or("the process has no output")?;
        let mut input = child.stdin.take().ok_or("the process has no input")?;
        let (send_paused, paused) = mpsc::channel(1);
        let progress = Arc::clone(progress);
        let listening = tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                match serde_json::from_str(&line) {
                    Ok(Message::Wrote(tally)) => progress.set_tally(number, tally),
                    Ok(Message::Read(reader)) => progress.set_reader(reader),
                    Ok(Message::Failed(why)) => progress.add_failure(why),
                    Ok(Message::Paused) => send_paused.send(()).await.unwrap_or_default(),
                    // A killed process may leave half a line.
                    Err(_) => {}
                }
            }
        });
        let (instructions, mut receiver) = mpsc::channel::<Instruction>(16);
        tokio::spawn(async move {
            while let Some(instruction) = receiver.recv().await {
                let Ok(line) = json_line(&instruction) else { return };
                if input.write_all(line.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, instructions, paused, listening: Some(listening) })
    }

    pub(crate) fn instructions(&self) -> mpsc::Sender<Instruction> {
        self.instructions.clone()
    }

    pub(crate) async fn instruct(&self, instruction: Instruction) -> Result<(), Fault> {
        self.instructions.send(instruction).await.map_err(|_| "a process of the run has ended too early".into())
    }

    /// Waits until no transaction of its writers is running.
    pub(crate) async fn pause(&mut self) -> Result<(), Fault> {
        self.instruct(Instruction::Pause).await?;
        self.paused.recv().await.ok_or_else(|| "a process of the run has ended too early".into())
    }

    /// Waits until it has exited and its last message was received. Returns whether it succeeded.
    pub(crate) async fn ended(&mut self) -> Result<bool, Fault> {
        let status = self.child.wait().await?;
        self.receive_rest().await?;
        Ok(status.success())
    }

    /// Kills it at once.
    pub(crate) async fn kill(mut self) -> Result<(), Fault> {
        self.child.kill().await?;
        self.receive_rest().await
    }

    async fn receive_rest(&mut self) -> Result<(), Fault> {
        if let Some(listening) = &mut self.listening {
            listening.await?;
            self.listening = None;
        }
        Ok(())
    }
}
