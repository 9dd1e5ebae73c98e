use super::*;
use tokio::time::advance;

#[cfg(feature = "axum")]
mod extract;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test(start_paused = true)]
async fn a_child_never_outlives_its_parent() {
    let parent = Deadline::within(ms(10_000));
    advance(ms(7_000)).await;
    assert_eq!(parent.child(ms(10_000)).left(), Some(ms(3_000)));
    assert_eq!(parent.child(ms(100)).left(), Some(ms(100)));
    assert_eq!(Deadline::NONE.child(ms(100)).left(), Some(ms(100)));
    assert_eq!(parent.earlier(Deadline::NONE), parent);
    assert_eq!(parent.child(Duration::MAX), parent);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_goes_from_service_to_service_whatever_their_clocks_say() {
    let caller = Deadline::within(ms(5_000));
    let attempt = |caller: Deadline| caller.child(ms(100)).to_header();
    assert_eq!(attempt(caller), Ok(Some("100".to_owned())));
    advance(ms(4_950)).await;
    assert_eq!(attempt(caller), Ok(Some("50".to_owned())));
    let receiver = Deadline::from_header("50").unwrap();
    advance(ms(20)).await;
    assert_eq!(receiver.to_header(), Ok(Some("30".to_owned())), "a third service gets less than the second got");
}

#[tokio::test(start_paused = true)]
async fn a_rest_below_a_millisecond_is_never_sent_as_0() {
    let deadline = Deadline::within(Duration::from_micros(400));
    assert_eq!(deadline.statement_timeout_ms(), Ok(Some(1)));
    assert_eq!(deadline.to_header(), Ok(Some("1".to_owned())));
    advance(Duration::from_micros(400)).await;
    assert_eq!(deadline.statement_timeout_ms(), Err(DeadlineOver));
    assert_eq!(deadline.to_header(), Err(DeadlineOver));
    assert_eq!(Deadline::NONE.statement_timeout_ms(), Ok(None));
    assert_eq!(Deadline::within(ms(1 << 40)).statement_timeout_ms(), Ok(Some(LONGEST)));
}

#[tokio::test(start_paused = true)]
async fn headers_that_are_no_milliseconds_are_refused() {
    for wrong in ["", "-1", "+5", "1.5", "1e3", " 5", "5 ", "soon", "2147483648", "99999999999999999999", "٣"] {
        assert_eq!(Deadline::from_header(wrong), Err(HeaderError), "{wrong}");
    }
    assert!(Deadline::from_header("0").unwrap().is_over());
    assert_eq!(Deadline::from_header("2147483647").unwrap().left(), Some(ms(2_147_483_647)));
}

#[tokio::test(start_paused = true)]
async fn work_ends_at_the_deadline_and_is_not_started_after_it() {
    let deadline = Deadline::within(ms(50));
    assert_eq!(deadline.run(async { 7 }).await, Ok(7));
    let start = Instant::now();
    assert_eq!(deadline.run(std::future::pending::<()>()).await, Err(DeadlineOver));
    assert_eq!(start.elapsed(), ms(50));
    let unstarted = async { panic!("it was started") };
    assert_eq!(deadline.run(unstarted).await.map(|(): ()| ()), Err(DeadlineOver));
    assert_eq!(Deadline::NONE.run(async { 7 }).await, Ok(7));
}
