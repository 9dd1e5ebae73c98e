//! Units of work whose futures are dropped half way.

use std::time::Duration;

use annals_eventstore::{EventStore, PostgresOptions, PostgresStore, StreamVersion, UnitOfWork};

use super::{ANY, Fixture, NO_STREAM, cut, own_row, stream};

#[tokio::test]
async fn a_unit_with_a_cancelled_append_cannot_be_committed() {
    let fixture = Fixture::with_table().await;
    let mut cuts = 0;
    let mut store = fixture.store.clone();
    for n in 0..64_usize {
        // On a new connection the statement is prepared first, which is one more round trip to be cut.
        if n % 8 < 4 {
            store = PostgresStore::open(fixture.database.url()).await.unwrap();
        }
        let (times, delay) = (1 + n % 4, Duration::from_micros([0, 2_000][n / 8 % 2]));
        let case = format!("{n}, dropped after {times} polls and {delay:?}");
        let id = format!("s{n}");
        let mut unit = store.begin().await.expect(&case);
        let appended = cut(unit.append(fixture.to(&id, ANY, 20)), times, delay).await;
        let whole = appended.is_some();
        if let Some(appended) = appended {
            appended.expect(&case);
        } else {
            cuts += 1;
            unit.append(fixture.to(&id, ANY, 1)).await.expect_err(&case);
        }
        assert_eq!(unit.commit().await.is_ok(), whole, "{case}");
        let page = fixture.store.load_page(&stream(&id), StreamVersion::NONE, 100).await.expect(&case);
        assert_eq!(page.events.len(), if whole { 20 } else { 0 }, "{case}");
    }
    assert!(cuts >= 8, "only {cuts} were cut");
}

#[tokio::test]
async fn a_unit_dropped_at_any_point_is_stored_whole_or_not_at_all() {
    let fixture = Fixture::with_table().await;
    let store = PostgresOptions::new(fixture.database.url()).connections(2).open().await.unwrap();
    let (mut known, mut cuts) = (Vec::new(), 0);
    for n in 0..200_i32 {
        let step = n as usize % 4;
        let (times, delay) = (1 + n as usize / 4 % 3, Duration::from_micros([0, 500][n as usize / 12 % 2]));
        let case = format!("step {step} of {n}, dropped after {times} polls and {delay:?}");
        let id = format!("s{n}");
        let ended = async || {
            let mut unit = match step {
                0 => cut(store.begin(), times, delay).await?.expect(&case),
                _ => store.begin().await.expect(&case),
            };
            match step {
                1 => cut(unit.append(fixture.to(&id, NO_STREAM, 3)), times, delay).await?.map(drop).expect(&case),
                _ => unit.append(fixture.to(&id, NO_STREAM, 3)).await.map(drop).expect(&case),
            }
            match step {
                2 => cut(own_row(&mut unit, n), times, delay).await?.expect(&case),
                _ => own_row(&mut unit, n).await.expect(&case),
            }
            Some(unit)
        };
        let committed = match ended().await {
            None => Some(false),
            Some(unit) if step == 3 => {
                cut(unit.commit(), times, delay).await.map(|done| done.map(|()| true).expect(&case))
            }
            Some(unit) => unit.commit().await.map(|()| Some(true)).expect(&case),
        };
        cuts += usize::from(committed != Some(true));
        known.push(committed);
        // The next borrower is not in an open transaction, so it can append to the same stream at once.
        if committed == Some(false) {
            store.append(&stream(&id), NO_STREAM, vec![fixture.event()]).await.expect(&case);
        }
    }
    assert!(cuts >= 15, "only {cuts} were cut");
    let (streams, rows) = fixture.stored().await;
    for (n, committed) in (0..).zip(known) {
        let version = streams.iter().find(|(id, _)| *id == format!("s{n}")).map(|(_, version)| *version);
        let own = rows.contains(&n);
        match committed {
            Some(true) => assert_eq!((version, own), (Some(3), true), "{n}"),
            Some(false) => assert_eq!((version, own), (Some(1), false), "{n}"),
            None => assert!(matches!((version, own), (Some(3), true) | (None, false)), "{n}: {version:?}, {own}"),
        }
    }
}
