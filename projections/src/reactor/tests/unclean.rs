//! A process that ends in the middle of a handler, again and again.

use std::time::Duration;

use super::mailer::{Act, Mailer, paid, position, process, start, stored, until, until_at};
use crate::Reactor;
use crate::tests::fixture::{Fixture, said};

/// A handler that aborts the process, overflows its stack or exhausts memory must not do so for ever.
#[test]
fn an_event_that_ends_the_process_each_time_is_found_and_stops_the_reactor_or_is_parked() {
    for parks in [false, true] {
        let shop = Fixture::new();
        // The process is killed as soon as the second event of `a` is begun; others are slow, so that they are unfinished too.
        let mailer = Mailer::new(|call| match (&*call.stream, call.version) {
            ("a", 2) => Act::Hang,
            _ => Act::Slow(Duration::from_millis(20)),
        });
        let reacting = || if parks { mailer.clone().dead_letter() } else { mailer.clone().streams_at_once(8) };
        let mut last = position(0);
        process(async {
            let views = shop.projections().react(reacting()).start().await.unwrap();
            views.close().await;
            for n in 0..30 {
                shop.append(&format!("s-{}", n % 7), paid(1)).await;
            }
            shop.append("a", paid(3)).await;
            last = shop.append("b", paid(3)).await;
        });
        let mut ends = 0;
        loop {
            let found = process(async {
                let views = shop.projections().react(reacting()).start().await.unwrap();
                let killers = || mailer.calls_of("a").iter().filter(|version| **version == 2).count();
                let before = killers();
                tokio::select! {
                    () = until("it is killed", || killers() > before) => false,
                    stopped = views.stopped() => {
                        let stopped = said(&stopped.unwrap_err());
                        assert!(!parks, "{stopped}");
                        assert!(stopped.contains("(`default/account/a`, version 2)"), "{stopped}");
                        assert!(stopped.ends_with("the process ended 5 times while the event was handled"), "{stopped}");
                        views.close().await;
                        true
                    }
                    () = until_at(&views, last), if parks => {
                        assert_eq!(views.reactors()[0].parked, 1);
                        views.close().await;
                        true
                    }
                }
            });
            if found {
                break;
            }
            ends += 1;
            assert!(ends < 12, "it ends the process for ever");
        }
        assert!(ends >= 5, "{ends}");
        if parks {
            assert_eq!(mailer.done_of("b").last(), Some(&3), "others go on");
        }
        // After a fix it is handled.
        process(async {
            if !parks {
                let views = start(&shop, &mailer.then(|_| Act::Done)).await;
                until_at(&views, last).await;
                views.close().await;
                assert_eq!(mailer.done_of("a").last(), Some(&3));
            }
        });
    }
}

/// Processes that are killed while nothing happens, or stopped as they should be, are no reason to be careful.
#[test]
fn the_ends_of_processes_that_were_idle_cost_nothing() {
    let shop = Fixture::new();
    let mailer = Mailer::new(|_| Act::Slow(Duration::from_millis(1)));
    for _ in 0..6 {
        process(async {
            let _views = start(&shop, &mailer).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        });
    }
    process(async {
        let views = start(&shop, &mailer).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        for n in 0..8 {
            shop.append(&format!("s-{n}"), paid(10)).await;
        }
        until_at(&views, position(80)).await;
        assert_eq!(mailer.most(), 8);
        views.close().await;
    });
    assert!(!shop.models.kept().contains(&"keep"), "{:?}", shop.models.kept());
    assert_eq!(process(stored(&shop)), 80);
}
