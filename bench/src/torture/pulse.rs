//! Keeps writers and readers together, and says how things stand.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::torture::board::Board;
use crate::torture::part::Word;

/// Who writes most waits while the slowest reader is this many positions behind: a reader that is far behind meets no
/// numbers that may still come.
const FAR_BEHIND: u64 = 50_000;

/// Holds writers back while readers are far behind, and says every ten seconds how things stand.
pub(crate) async fn pulse(board: Arc<Board>, writers: Vec<mpsc::Sender<Word>>, began: Instant) {
    let (mut slow, mut told, mut appends) = (false, Instant::now(), 0);
    loop {
        sleep(Duration::from_millis(50)).await;
        let tally = board.tally();
        let slowest = board.slowest();
        let behind = tally.head.saturating_sub(slowest.position);
        if slow != (behind > FAR_BEHIND) {
            slow = !slow;
            for writer in &writers {
                writer.send(if slow { Word::Slow } else { Word::Fast }).await.ok();
            }
        }
        if told.elapsed() >= Duration::from_secs(10) {
            let rate = (tally.appends - appends) as f64 / told.elapsed().as_secs_f64();
            eprintln!(
                "torture: {:>5.0} s  {:>9} appends  {rate:>6.0}/s  position {:>9}  reader {} {behind} behind",
                began.elapsed().as_secs_f64(),
                tally.appends,
                tally.head,
                slowest.reader,
            );
            (told, appends) = (Instant::now(), tally.appends);
        }
    }
}
