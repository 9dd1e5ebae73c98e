use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::live::Reader;
use super::report::Status;

/// Clients that are waited for at the same time. A further one takes the place of the one that is silent for the longest.
const CONNECTIONS: usize = 16;
/// Threads that answer, with those whose clients have lost their places and that are about to end.
const THREADS: usize = 4 * CONNECTIONS;
/// How long a client may take for its question.
const TIME: Duration = Duration::from_secs(1);
/// The most bytes of a question.
const HEAD: usize = 8 * 1024;

/// Answers `GET /health/live` by plain threads.
#[derive(Debug)]
pub(super) struct LivePort {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl LivePort {
    pub(super) fn start(address: SocketAddr, live: Reader) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let serve = move || {
            let open = Arc::new(Open::default());
            for connection in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                match connection {
                    Ok(connection) => answer_beside(connection, live.clone(), &open),
                    // One client's failure says nothing of the next one. Without descriptors, a pause lets some be freed.
                    Err(error) => {
                        tracing::debug!(%error, "a question about health was not accepted");
                        std::thread::park_timeout(Duration::from_millis(10));
                    }
                }
            }
        };
        std::thread::Builder::new().name("health-port".to_owned()).spawn(serve)?;
        Ok(Self { address, stop })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for LivePort {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for a connection.
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let woken = TcpStream::connect_timeout(&SocketAddr::new(ip, self.address.port()), TIME);
        if let Err(error) = woken {
            tracing::debug!(%error, "the thread that answers about health was not woken");
        }
    }
}

/// The clients that are waited for, by their numbers: the smallest came first.
#[derive(Debug, Default)]
struct Open {
    next: AtomicU64,
    clients: Mutex<BTreeMap<u64, TcpStream>>,
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, TcpStream>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a client in. If all places are taken, the one that came first is closed, which ends its thread.
    fn enter(self: &Arc<Self>, client: TcpStream) -> Place {
        let mut clients = self.lock();
        if clients.len() >= CONNECTIONS
            && let Some((_, first)) = clients.pop_first()
            && let Err(error) = first.shutdown(Shutdown::Both)
        {
            tracing::debug!(%error, "a client that asked nothing about health was gone already");
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        clients.insert(number, client);
        Place { open: self.clone(), number }
    }
}

/// The place of one client, free again when dropped.
struct Place {
    open: Arc<Open>,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.lock().remove(&self.number);
    }
}

/// A thread for each question, so that no slow client delays another's answer.
fn answer_beside(connection: TcpStream, live: Reader, open: &Arc<Open>) {
    // Those that have lost their places end soon, and all others within the time of a question.
    while Arc::strong_count(open) > THREADS {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let started = connection.try_clone().map(|client| open.enter(client)).and_then(|place| {
        let answer = move || {
            let _place = place;
            if let Err(error) = answer(connection, &live) {
                tracing::debug!(%error, "a question about health was not answered");
            }
        };
        std::thread::Builder::new().name("health-answer".to_owned()).spawn(answer)
    });
    if let Err(error) = started {
        tracing::debug!(%error, "no thread to answer a question about health");
    }
}

fn answer(mut connection: TcpStream, live: &Reader) -> std::io::Result<()> {
    connection.set_write_timeout(Some(TIME))?;
    let head = read_head(&mut connection)?;
    let mut words = head.split(|byte| *byte == b' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
    let (code, body) = if path != b"/health/live" {
        ("404 Not Found", "{}")
    } else if method != b"GET" && method != b"HEAD" {
        ("405 Method Not Allowed", "{}")
    } else if live.status() == Status::Up {
        ("200 OK", r#"{"status":"up","checks":{}}"#)
    } else {
        ("503 Service Unavailable", r#"{"status":"down","checks":{}}"#)
    };
    let length = body.len();
    let body = if method == b"HEAD" { "" } else { body };
    let answer = format!(
        "HTTP/1.1 {code}\r\ncontent-type: application/json\r\ncache-control: no-store\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    );
    connection.write_all(answer.as_bytes())?;
    connection.shutdown(Shutdown::Write)
}

/// Reads until the empty line: a connection closed with unread bytes would be reset, and the answer lost.
fn read_head(connection: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let until = Instant::now() + TIME;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() || head.len() > HEAD {
            return Err(ErrorKind::TimedOut.into());
        }
        connection.set_read_timeout(Some(left))?;
        match connection.read(&mut buffer)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => head.extend_from_slice(&buffer[..read]),
        }
    }
    Ok(head)
}
