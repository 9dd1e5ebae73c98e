//! Tests of the pure core, and of the runner over a store in memory and read models in every database.

pub(crate) mod accounts;
mod as_of;
mod blocked;
mod columns;
mod dead_letters;
mod deploy;
pub(crate) mod fixture;
mod folding;
mod health;
mod law;
mod leases;
mod lines;
mod messages;
mod minimal_store;
mod normal;
pub(crate) mod observed;
mod observing;
mod of_aggregate;
mod page_reader;
mod panics;
mod parking;
mod rebuild;
mod restored;
mod rivals;
mod runner;
mod slot;
mod start;
mod streams;
pub(crate) mod swapped;
mod tenants;
#[cfg(all(feature = "sqlite", feature = "postgres"))]
mod transactions;
pub(crate) mod troubled;
mod waits;

/// One list, so that no database can miss a test. In memory time is paused; elsewhere it is real.
macro_rules! on_every_database {
    ($($theme:ident::$test:ident,)*) => {
        mod in_memory {$(
            #[tokio::test(start_paused = true)]
            async fn $test() {
                super::$theme::$test(super::fixture::Fixture::new()).await;
            }
        )*}

        #[cfg(feature = "sqlite")]
        mod in_file {$(
            #[tokio::test]
            async fn $test() {
                let backend = crate::database::contract::InFile::new().await;
                super::$theme::$test(super::fixture::Fixture::at(backend)).await;
            }
        )*}

        #[cfg(feature = "postgres")]
        mod in_postgres {$(
            #[tokio::test]
            async fn $test() {
                let backend = crate::database::contract::InPostgres::new().await;
                super::$theme::$test(super::fixture::Fixture::at(backend)).await;
            }
        )*}
    };
}

on_every_database! {
    runner::a_wait_for_a_position_reads_its_own_writes,
    runner::an_event_that_cannot_be_applied_stops_its_projection_alone_and_a_fix_continues_from_there,
    runner::a_panic_stops_its_projection_alone,
    runner::an_unreadable_event_of_a_wanted_name_stops_and_others_are_not_even_looked_at,
    runner::a_projection_of_one_tenant_sees_no_other,
    runner::passing_faults_of_the_database_are_waited_out_and_nothing_is_applied_twice,
    runner::what_the_database_refuses_stops_its_projection_alone,
    runner::two_runners_of_one_projection_apply_every_event_once,
    runner::a_checkpoint_that_somebody_removed_stops_the_projection,
    runner::a_checkpoint_that_another_process_moved_is_followed,
    runner::events_of_a_long_log_are_written_once_a_row_and_page,
    start::a_restart_continues_where_it_ended,
    start::a_read_model_of_another_log_is_refused,
    start::a_raised_version_is_built_beside_the_old_one_and_shown_when_it_has_caught_up,
    start::a_new_projection_catches_up_while_the_others_follow_the_log,
    normal::events_at_once_and_one_by_one_give_the_same_row,
    normal::a_null_of_json_comes_back_as_it_was,
    normal::a_row_too_long_for_an_index_stops_its_projection_and_the_event_is_named,
    panics::a_stored_row_whose_reading_panics_costs_its_projection_or_its_stream,
    blocked::a_table_that_others_lock_costs_its_own_projection_alone,
    blocked::rows_that_are_large_are_loaded_for_fewer_events_at_once,
    blocked::large_rows_of_small_events_are_written_in_parts,
    lines::rows_of_a_tenant_are_its_own_and_gone_when_their_beginning_was_removed,
    tenants::nothing_is_removed_by_an_event_behind_the_one_that_stops_the_projection,
    rebuild::rebuild_equals_first_build,
    as_of::rows_as_of_a_position_are_those_of_a_projection_that_was_stopped_there,
    as_of::what_cannot_be_shown_as_it_was_says_why,
    leases::processes_share_the_projections_and_take_over_from_each_other,
    leases::an_owner_that_hangs_past_its_lease_writes_nothing_more,
    leases::slots_that_come_back_together_are_claimed_together_and_share_pages_and_commits,
    leases::a_pause_ends_all_work_at_once_in_every_process,
    leases::a_database_that_refuses_leases_stops_what_does_not_run_and_says_so,
    leases::an_event_that_ends_processes_stops_its_projection_at_last,
    leases::after_a_process_has_ended_one_event_at_a_time_is_tried_in_all_projections,
    leases::what_has_stopped_in_one_process_is_left_to_others_and_started_again_on_request,
    streams::a_stream_projection_runs_reads_and_waits_as_any_other,
    dead_letters::a_failing_event_costs_its_stream_alone_and_a_retry_applies_all_in_order,
    dead_letters::a_retry_that_fails_again_keeps_what_it_could_apply,
    dead_letters::what_was_dropped_or_retried_never_comes_again,
    dead_letters::events_that_arrive_while_a_stream_is_retried_follow_behind_in_order,
    dead_letters::parked_streams_that_cannot_be_read_stop_their_slot_and_say_so,
    dead_letters::a_read_model_that_was_emptied_has_all_events_of_a_parked_stream_in_the_end,
    dead_letters::a_retry_that_another_was_faster_than_changes_nothing,
    dead_letters::of_two_retries_at_once_one_is_done,
    dead_letters::ten_thousand_waiting_events_are_retried_or_none,
    rivals::changes_that_cancel_out_are_a_step_that_another_process_cannot_take_half,
    rivals::what_is_reported_as_reached_is_never_taken_back_by_another_process,
    rivals::a_fold_that_fails_because_another_process_was_faster_continues,
    rivals::an_event_that_another_process_got_past_stops_nobody,
    rivals::an_event_that_fails_without_a_row_stops_nobody_once_another_process_got_past_it,
    rivals::a_read_model_that_was_emptied_under_a_runner_is_built_anew,
    rivals::a_checkpoint_put_back_with_its_rows_is_followed,
    rivals::a_checkpoint_of_another_log_is_never_adopted,
    rivals::a_checkpoint_of_another_log_at_the_same_position_is_noticed,
    rivals::rivals_that_die_and_are_put_back_leave_the_rows_of_a_fresh_fold,
    deploy::an_old_build_that_starts_beside_a_newer_one_leaves_it_the_name,
    deploy::a_version_that_took_the_name_over_keeps_it_when_the_old_build_restarts,
    deploy::a_wait_ends_when_the_name_shows_the_event_and_not_before,
    deploy::a_version_built_from_events_that_are_lost_gives_the_name_up,
    deploy::a_wait_for_a_version_that_nobody_feeds_says_so,
    deploy::an_event_that_a_projection_learns_needs_a_raised_version,
    deploy::another_tenant_needs_a_raised_version,
    deploy::the_name_goes_down_only_on_request_and_stays_there,
    deploy::old_starts_first_and_both_start_again,
    deploy::new_starts_first_and_ends_before_the_old,
    deploy::old_ends_before_new_starts_and_takes_the_name_back,
}
