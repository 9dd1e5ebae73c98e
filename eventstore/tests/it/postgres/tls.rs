//! Encrypted connections, and servers whose identity cannot be verified.

use annals_eventstore::{After, EventStore, ExpectedVersion, Filter, OpenError, PostgresOptions, PostgresStore};
use annals_scratch::Database;
use sqlx::{Connection, PgConnection, Row};

use super::{event_for, stream};
use crate::backends::postgres_database_on_our_own;

/// What the server knows of the store's connections: whether each is encrypted.
const ENCRYPTED: &str = "
    SELECT DISTINCT s.ssl
    FROM pg_stat_ssl AS s
    JOIN pg_stat_activity AS a ON a.pid = s.pid
    WHERE a.datname = current_database() AND a.application_name = 'annals'
    ORDER BY 1
";

fn url(database: &Database, host: &str, parameters: &str) -> String {
    format!("postgres://postgres@{host}:{}/{}?{parameters}", database.tls().port, database.name())
}

/// Whether all our connections are, of which there is one at least.
async fn all_encrypted(database: &Database) -> bool {
    let mut connection = PgConnection::connect(database.url()).await.unwrap();
    let rows = sqlx::query(ENCRYPTED).fetch_all(&mut connection).await.unwrap();
    !rows.is_empty() && rows.iter().all(|row| row.get(0))
}

#[tokio::test]
async fn a_server_that_proves_its_name_gets_an_encrypted_connection() {
    let database = postgres_database_on_our_own().await;
    let tls = database.tls();
    let verified = format!("sslmode=verify-full&sslrootcert={}", tls.root.display());
    let store = PostgresStore::open(url(&database, tls.host, &verified)).await.unwrap();
    store.append(&stream("a"), ExpectedVersion::NoStream, vec![event_for(&store)]).await.unwrap();
    assert_eq!(store.read_page(After::START, &Filter::all(), 10).await.unwrap().events.len(), 1);
    assert!(all_encrypted(&database).await);
}

#[tokio::test]
async fn a_server_that_cannot_prove_its_name_is_refused() {
    let database = postgres_database_on_our_own().await;
    let tls = database.tls();
    let root = format!("sslrootcert={}", tls.root.display());
    let foreign = format!("sslrootcert={}", tls.foreign_root.display());
    for (host, parameters) in [
        ("127.0.0.1", format!("sslmode=verify-full&{root}")),
        (tls.host, format!("sslmode=verify-full&{foreign}")),
        (tls.host, format!("sslmode=verify-ca&{foreign}")),
        (tls.host, "sslmode=verify-full".to_owned()),
    ] {
        let url = url(&database, host, &parameters);
        let refused = PostgresStore::open(&url).await.unwrap_err();
        assert!(matches!(refused, OpenError::Untrusted { .. }), "{url}: {refused:?}");
        assert!(refused.to_string().contains("`sslrootcert`"), "{refused}");
    }
    // The same server under another name, where its name was not checked.
    let store = PostgresStore::open(url(&database, "127.0.0.1", &format!("sslmode=verify-ca&{root}"))).await.unwrap();
    store.head().await.unwrap();
    assert!(all_encrypted(&database).await);
}

#[tokio::test]
async fn a_socket_needs_no_encryption_and_has_none() {
    let database = postgres_database_on_our_own().await;
    let plain = PostgresOptions::new(format!("{}&sslmode=disable", database.url())).open().await.unwrap();
    plain.head().await.unwrap();
    assert!(!all_encrypted(&database).await);
    // A server that cannot encrypt, as none does over its socket, is refused by a client that requires encryption.
    let refused = PostgresStore::open(format!("{}&sslmode=require", database.url())).await.unwrap_err();
    assert!(matches!(refused, OpenError::Untrusted { .. }), "{refused:?}");
}
