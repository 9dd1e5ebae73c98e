//! Many streams in one statement, one after the other as fast as they go.

use std::sync::Arc;

use fastrand::Rng;

use crate::torture::Fault;
use crate::torture::fact::Fact;
use crate::torture::place::{Link, Place};
use crate::torture::writers::desk::Desk;
use crate::torture::writers::insert::insert;
use crate::torture::writers::own::Own;

pub(super) struct Group {
    link: Link,
    own: Own,
    random: Rng,
    /// The place of the stream that comes next.
    next: u32,
}

impl Group {
    pub(super) fn new(place: &Place, writer: u32, random: Rng) -> Self {
        Self { link: Link::new(place), own: Own::of(writer), random, next: 0 }
    }

    pub(super) async fn write(mut self, desk: Arc<Desk>) -> Result<(), Fault> {
        while let Some(_at_work) = desk.enter_slowly().await {
            let streams: Vec<u32> =
                (0..self.random.u32(20..80)).map(|n| self.own.stream(self.next.wrapping_add(n))).collect();
            self.next = self.next.wrapping_add(streams.len() as u32);
            match self.commit(&streams).await {
                Ok(facts) => {
                    for fact in &facts {
                        self.own.set(fact.stream, Some(fact.version.into()));
                    }
                    desk.acknowledge(&facts)?;
                }
                Err(_) => {
                    desk.count().unknown += 1;
                    for stream in streams {
                        self.own.set(stream, None);
                    }
                    self.link.mend().await;
                }
            }
        }
        self.link.close().await;
        Ok(())
    }

    async fn commit(&mut self, streams: &[u32]) -> Result<Vec<Fact>, Fault> {
        let connection = self.link.get().await?;
        let mut events = Vec::new();
        for &stream in streams {
            let version = self.own.version(stream, connection).await?;
            let count = if self.random.u8(..5) == 0 { self.random.i64(2..4) } else { 1 };
            events.extend((1..=count).map(|n| (stream, version + n)));
        }
        insert(connection, &events).await
    }
}
