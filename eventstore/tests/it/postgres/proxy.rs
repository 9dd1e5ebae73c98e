//! A proxy that fails on demand: it sits between a handle and its server, reads the requests, and drops a request or its
//! answer, or delays the answer.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;

/// The message that is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The request, and the connection with it: the server never receives it.
    Request,
    /// The answer, and the connection with it, once the server has given it.
    Answer,
    /// The end of the answer, and the connection with it: the rows arrive.
    EndOfAnswer,
    /// The answer alone: the connection stays, and nothing ever comes.
    Silently,
    /// Time alone: the server has given the answer, and it comes when it is released.
    Time,
}

/// Loses things between a store and its database.
pub(super) struct Proxy {
    folder: tempfile::TempDir,
    options: PgConnectOptions,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// What to lose, of the next statement that has the words.
    plan: Mutex<Option<Plan>>,
    /// Whether all connections are refused.
    away: watch::Sender<bool>,
    /// How many connections were made.
    connected: AtomicUsize,
    /// How many answers have been held back, and how many released.
    held: watch::Sender<usize>,
    released: watch::Sender<usize>,
}

struct Plan {
    lost: Lost,
    /// What the statement before it on its connection has.
    before: String,
    words: String,
}

impl Proxy {
    /// Starts a proxy for the database at `url`.
    pub(super) fn before(url: &str) -> Self {
        let server: PgConnectOptions = url.parse().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(socket(folder.path(), 5432)).unwrap();
        let options = server.clone().socket(folder.path()).port(5432).ssl_mode(PgSslMode::Disable);
        let shared = Arc::new(Shared::default());
        tokio::spawn(listen(listener, server, Arc::clone(&shared)));
        Self { folder, options, shared }
    }

    /// The address of the database itself.
    pub(super) fn url(&self) -> String {
        assert!(self.folder.path().exists());
        self.options.to_url_lossy().to_string()
    }

    /// Plans a loss for the next statement that has these words, on whichever connection it comes.
    pub(super) fn lose(&self, lost: Lost, words: &str) {
        self.lose_following(lost, "", words);
    }

    /// The same for the next statement with these words that directly follows one with the words `before`.
    pub(super) fn lose_following(&self, lost: Lost, before: &str, words: &str) {
        let plan = Plan { lost, before: before.to_owned(), words: words.to_owned() };
        *self.shared.plan.lock().unwrap() = Some(plan);
    }

    /// Whether the planned loss has happened, or at least begun.
    pub(super) fn has_lost(&self) -> bool {
        self.shared.plan.lock().unwrap().is_none()
    }

    /// Waits until the server has given the answer that is held back.
    pub(super) async fn holds(&self) {
        let released = *self.shared.released.borrow();
        self.shared.held.subscribe().wait_for(|held| *held > released).await.unwrap();
    }

    /// Forwards the delayed answer.
    pub(super) fn release(&self) {
        self.shared.released.send_modify(|released| *released += 1);
    }

    /// Ends all connections and refuses new ones, or stops refusing them.
    pub(super) fn be_away(&self, away: bool) {
        self.shared.away.send_replace(away);
    }

    /// How many connections were made or tried.
    pub(super) fn connected(&self) -> usize {
        self.shared.connected.load(Ordering::Acquire)
    }
}

fn socket(folder: &Path, port: u16) -> PathBuf {
    folder.join(format!(".s.PGSQL.{port}"))
}

async fn listen(listener: UnixListener, server: PgConnectOptions, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        shared.connected.fetch_add(1, Ordering::AcqRel);
        if !*shared.away.borrow() {
            let (server, shared) = (server.clone(), Arc::clone(&shared));
            tokio::spawn(async move {
                // Both connections end with this, with or without an error.
                let _ = between(client, &server, &shared).await;
            });
        }
    }
}

type Reading = Pin<Box<dyn AsyncRead + Send>>;
type Writing = Pin<Box<dyn AsyncWrite + Send>>;

async fn connect(server: &PgConnectOptions) -> std::io::Result<(Reading, Writing)> {
    Ok(match server.get_socket() {
        Some(folder) => {
            let (read, write) = UnixStream::connect(socket(folder, server.get_port())).await?.into_split();
            (Box::pin(read), Box::pin(write))
        }
        None => {
            let (read, write) = TcpStream::connect((server.get_host(), server.get_port())).await?.into_split();
            (Box::pin(read), Box::pin(write))
        }
    })
}

/// Forwards everything between a client and the server, until a message must be lost.
async fn between(client: UnixStream, server: &PgConnectOptions, shared: &Shared) -> std::io::Result<()> {
    let (from_server, to_server) = connect(server).await?;
    let (from_client, to_client) = client.into_split();
    // What the next answer will lose.
    let losing = Mutex::new(None);
    let mut away = shared.away.subscribe();
    tokio::select! {
        end = requests(from_client, to_server, shared, &losing) => end,
        end = answers(from_server, to_client, shared, &losing) => end,
        _ = away.wait_for(|away| *away) => Ok(()),
    }
}

async fn requests(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    shared: &Shared,
    losing: &Mutex<Option<Lost>>,
) -> std::io::Result<()> {
    // The first message has no kind.
    let length = from.read_u32().await?;
    let mut first = vec![0; length as usize - 4];
    from.read_exact(&mut first).await?;
    to.write_u32(length).await?;
    to.write_all(&first).await?;
    let mut statements: HashMap<String, String> = HashMap::new();
    let mut previous = String::new();
    loop {
        let (kind, message) = receive(&mut from).await?;
        let mut texts = message.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
        let mut next = || texts.next().unwrap_or_default();
        let executed = match kind {
            // A text, or the portal and the name of a statement that was parsed before.
            b'Q' => next(),
            b'B' => {
                next();
                statements.get(&next()).cloned().unwrap_or_default()
            }
            b'P' => {
                statements.insert(next(), next());
                String::new()
            }
            _ => String::new(),
        };
        let fits = |plan: &mut Plan| has(&executed, &plan.words) && previous.contains(&plan.before);
        let lost = shared.plan.lock().unwrap().take_if(fits).map(|plan| plan.lost);
        if lost == Some(Lost::Request) {
            return Ok(());
        }
        if lost.is_some() {
            *losing.lock().unwrap() = lost;
        }
        if !executed.is_empty() {
            previous = executed;
        }
        send(&mut to, kind, &message).await?;
    }
}

/// `COMMIT` is no word of `READ COMMITTED`.
fn has(statement: &str, words: &str) -> bool {
    statement.match_indices(words).any(|(at, _)| !statement[at + words.len()..].starts_with(char::is_alphabetic))
}

async fn answers(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    shared: &Shared,
    losing: &Mutex<Option<Lost>>,
) -> std::io::Result<()> {
    let mut late = Vec::new();
    loop {
        // As over TCP, the client reads the server's last message, and sees the lost connection at the next request.
        let Ok((kind, message)) = receive(&mut from).await else { std::future::pending().await };
        let lost = *losing.lock().unwrap();
        let is_row = kind == b'D';
        if lost == Some(Lost::Time) {
            let is_end = kind == b'Z';
            late.push((kind, message));
            if is_end {
                let mut held = 0;
                shared.held.send_modify(|all| (*all, held) = (*all + 1, *all + 1));
                let _ = shared.released.subscribe().wait_for(|released| *released >= held).await;
                *losing.lock().unwrap() = None;
                for (kind, message) in late.drain(..) {
                    send(&mut to, kind, &message).await?;
                }
            }
            continue;
        }
        if lost.is_none() || (lost == Some(Lost::EndOfAnswer) && is_row) {
            send(&mut to, kind, &message).await?;
        }
        // With the word that it is ready for the next one, the server has done all of it.
        if lost.is_some() && kind == b'Z' {
            match lost {
                Some(Lost::Silently) => std::future::pending().await,
                _ => return Ok(()),
            }
        }
    }
}

async fn receive(from: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(u8, Vec<u8>)> {
    let kind = from.read_u8().await?;
    let length = from.read_u32().await?;
    let mut message = vec![0; length as usize - 4];
    from.read_exact(&mut message).await?;
    Ok((kind, message))
}

async fn send(to: &mut (impl AsyncWrite + Unpin), kind: u8, message: &[u8]) -> std::io::Result<()> {
    let mut whole = Vec::with_capacity(message.len() + 5);
    whole.push(kind);
    whole.extend_from_slice(&(message.len() as u32 + 4).to_be_bytes());
    whole.extend_from_slice(message);
    to.write_all(&whole).await
}
