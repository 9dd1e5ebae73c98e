//! The other processes of a run, as the leading one sees them.

use std::process::Stdio;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::torture::Fault;
use crate::torture::board::Board;
use crate::torture::part::{Part, Said, Word};

/// A process that was started. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    words: mpsc::Sender<Word>,
    hushed: mpsc::Receiver<()>,
    /// Until it has heard everything.
    listening: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts a process for this part; what it says comes to the board, as from the writers numbered `number`.
    pub(crate) fn start(part: &Part, number: usize, board: &Arc<Board>) -> Result<Self, Fault> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["torture-part", &serde_json::to_string(part)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().ok_or("the process has no output")?;
        let mut input = child.stdin.take().ok_or("the process has no input")?;
        let (tell_hushed, hushed) = mpsc::channel(1);
        let board = Arc::clone(board);
        let listening = tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            // A process that is killed may leave half a line.
            while let Ok(Some(line)) = lines.next_line().await {
                match serde_json::from_str(&line) {
                    Ok(Said::Wrote(tally)) => board.wrote(number, tally),
                    Ok(Said::Read(progress)) => board.read(progress),
                    Ok(Said::Failed(why)) => board.failed(why),
                    Ok(Said::Hushed) => tell_hushed.send(()).await.unwrap_or_default(),
                    Err(_) => {}
                }
            }
        });
        let (words, mut spoken) = mpsc::channel::<Word>(16);
        tokio::spawn(async move {
            while let Some(word) = spoken.recv().await {
                let Ok(mut line) = serde_json::to_string(&word) else { return };
                line.push('\n');
                if input.write_all(line.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, words, hushed, listening: Some(listening) })
    }

    /// Where to say words to it.
    pub(crate) fn words(&self) -> mpsc::Sender<Word> {
        self.words.clone()
    }

    pub(crate) async fn say(&self, word: Word) -> Result<(), Fault> {
        self.words.send(word).await.map_err(|_| "a process of the run has ended too early".into())
    }

    /// Waits until it has nothing under way.
    pub(crate) async fn hush(&mut self) -> Result<(), Fault> {
        self.say(Word::Hush).await?;
        self.hushed.recv().await.ok_or_else(|| "a process of the run has ended too early".into())
    }

    /// Waits until it has ended and all that it has said has been heard. Tells whether it ended well.
    pub(crate) async fn ended(&mut self) -> Result<bool, Fault> {
        let status = self.child.wait().await?;
        self.hear_the_rest().await?;
        Ok(status.success())
    }

    /// Kills it at once.
    pub(crate) async fn kill(mut self) -> Result<(), Fault> {
        self.child.kill().await?;
        self.hear_the_rest().await
    }

    async fn hear_the_rest(&mut self) -> Result<(), Fault> {
        if let Some(listening) = &mut self.listening {
            listening.await?;
            self.listening = None;
        }
        Ok(())
    }
}
