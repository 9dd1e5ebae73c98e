//! The scene `-- mail`: a reactor sends a mail for each order that is shipped, through a mail service that fails at first.
//!
//! A reactor gets every event at least once, and each effect has one key for ever. The service remembers the keys, so that a
//! request that is sent again, because its answer was lost, has no second effect. What this leaves out: a client of HTTP and a
//! server, of which there are good ones; here both are a page of plain sockets.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Error, ErrorKind, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use annals::projections::{EffectKey, Reactor, ReactorError};
use annals::{Position, ProjectionsBuilder, Recorded};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::Fault;
use crate::domain::money::Money;
use crate::domain::order::OrderCommand::{Pay, Place, Reserve, Ship};
use crate::domain::order::{CustomerId, Line, OrderEvent, OrderId, PaymentId};
use crate::location::Location;
use crate::shop::{Shop, with_list};

/// Tells the customer that the parcel is on its way.
struct ShippingMail {
    service: SocketAddr,
}

impl Reactor for ShippingMail {
    type Event = OrderEvent;
    const NAME: &'static str = "shipping_mail";

    async fn react(&self, event: &Recorded<OrderEvent>, key: &EffectKey) -> Result<(), ReactorError> {
        let OrderEvent::Shipped { carrier, tracking } = &event.event else { return Ok(()) };
        let order: OrderId = event.aggregate_id()?;
        // Any error but a permanent one is tried again, with the same key.
        Ok(post(self.service, key, &format!("{order} is on its way with {carrier}, number {tracking}")).await?)
    }
}

/// Asks the service to send a mail.
async fn post(service: SocketAddr, key: &EffectKey, mail: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(service).await?;
    let length = mail.len();
    let request = format!("POST /mails HTTP/1.1\r\nIdempotency-Key: {key}\r\nContent-Length: {length}\r\n\r\n{mail}");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    match answer.split(' ').nth(1) {
        Some("200") => Ok(()),
        Some(status) => Err(Error::other(format!("the mail service answers {status}"))),
        None => Err(Error::new(ErrorKind::UnexpectedEof, "the mail service has hung up without an answer")),
    }
}

/// What the service does with a request.
#[derive(Clone, Copy)]
enum Does {
    /// It is overloaded, and sends nothing.
    Refuses,
    /// It sends the mail, but the answer is lost.
    HangsUp,
}

/// What a key was sent for.
struct Mail {
    text: String,
    requests: u32,
    sent: u32,
}

/// A mail service within this process.
#[derive(Clone)]
struct MailServer {
    /// What goes wrong with the next requests, in turn.
    troubles: Arc<Mutex<VecDeque<Does>>>,
    mails: Arc<Mutex<BTreeMap<String, Mail>>>,
}

impl MailServer {
    async fn start() -> std::io::Result<(Self, SocketAddr, JoinHandle<()>)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let server = Self { troubles: Arc::default(), mails: Arc::default() };
        let serving = server.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that is gone does not end the service.
                serving.serve(stream).await.ok();
            }
        });
        Ok((server, address, task))
    }

    /// What goes wrong with the next requests.
    fn next(&self, troubles: impl IntoIterator<Item = Does>) {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).extend(troubles);
    }

    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(&mut stream);
        let (mut key, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).await?;
            match line.trim_end().split_once(": ") {
                Some(("Idempotency-Key", value)) => value.clone_into(&mut key),
                Some(("Content-Length", value)) => length = value.parse().map_err(Error::other)?,
                _ if line.trim_end().is_empty() => break,
                _ => {}
            }
        }
        let mut text = vec![0; length];
        reader.read_exact(&mut text).await?;
        match self.take(key, String::from_utf8_lossy(&text).into_owned()) {
            Some(status) => stream.write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await,
            None => Ok(()),
        }
    }

    /// Sends a mail, unless one was sent under its key; the answer, if it is not lost.
    fn take(&self, key: String, text: String) -> Option<&'static str> {
        let does = self.troubles.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let mut mails = self.mails.lock().unwrap_or_else(PoisonError::into_inner);
        let mail = mails.entry(key).or_insert(Mail { text, requests: 0, sent: 0 });
        mail.requests += 1;
        if let Some(Does::Refuses) = does {
            return Some("503 Service Unavailable");
        }
        if mail.sent == 0 {
            mail.sent = 1;
        }
        does.is_none().then_some("200 OK")
    }

    /// Prints what it has done, in the order of the texts.
    fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let mails = self.mails.lock().unwrap_or_else(PoisonError::into_inner);
        let mut mails: Vec<&Mail> = mails.values().collect();
        mails.sort_unstable_by(|one, other| one.text.cmp(&other.text));
        for Mail { text, requests, sent } in mails {
            writeln!(out, "  {text}: {requests} requests with one key, {sent} mail sent")?;
        }
        Ok(())
    }
}

/// Runs the scene at `location` with orders from `number` on, and prints to `out` what happens.
pub async fn play(location: &Location, number: i64, out: &mut dyn Write) -> Result<(), Fault> {
    writeln!(out, "An order is shipped before the reactor is started for the first time. That is history: no mail.")?;
    let shop = Shop::open(location).await?;
    ship(&shop, number).await?;
    shop.close().await?;

    let (server, address, serving) = MailServer::start().await?;
    let with_mail = |views: ProjectionsBuilder| with_list(views).react(ShippingMail { service: address });
    let shop = Shop::open_with(location, with_mail).await?;
    writeln!(out, "\nThe mail service refuses two requests. The reactor waits and asks again, with the same key.")?;
    server.next([Does::Refuses, Does::Refuses]);
    handled(&shop, ship(&shop, number + 1).await?).await?;
    server.print(out)?;

    writeln!(out, "\nThe next mail is sent, but the answer is lost. Asked again, the service knows the key.")?;
    server.next([Does::HangsUp]);
    handled(&shop, ship(&shop, number + 2).await?).await?;
    server.print(out)?;
    shop.close().await?;

    writeln!(out, "\nThe program is started again: what was handled stays handled, and the next order gets its mail.")?;
    let shop = Shop::open_with(location, with_mail).await?;
    handled(&shop, ship(&shop, number + 3).await?).await?;
    server.print(out)?;
    shop.close().await?;
    serving.abort();
    Ok(())
}

/// Waits until the reactor has handled everything up to `position`.
async fn handled(shop: &Shop, position: Position) -> Result<(), Fault> {
    let end = Instant::now() + Duration::from_secs(60);
    while shop.views.reactors().iter().any(|reactor| reactor.position < position) {
        if Instant::now() > end {
            return Err(format!("after a minute the reactor is {:?}", shop.views.reactors()).into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// An order up to the moment when the parcel leaves.
async fn ship(shop: &Shop, number: i64) -> Result<Position, Fault> {
    let (id, price) = (OrderId::new(format!("o-{number}"))?, Money::euro_cents(12_900));
    let lines = vec![Line { product: "grinder".to_owned(), quantity: 1, price }];
    let payment = PaymentId::new(format!("pay-{number}"))?;
    shop.orders.send(&id, Place { customer: CustomerId::new("alice")?, lines }).await?;
    shop.orders.send(&id, Pay { payment, amount: price }).await?;
    shop.orders.send(&id, Reserve { warehouse: "north".into() }).await?;
    Ok(shop.orders.send(&id, Ship { carrier: "snail".into(), tracking: format!("SN-{number}") }).await?.position)
}
