//! The one list of clauses. A clause that is missing here is unused code, which the compiler reports.

use futures::FutureExt;

use crate::conformance::run::Clause;

/// Passes every clause, by theme, to the macro that is named first, after any other arguments.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_clauses {
    ([$($then:tt)*] $($given:tt)*) => {
        $($then)*! {
            $($given)*
            append {
                the_first_event_of_a_stream_has_version_one,
                the_answer_names_stream_version_and_positions,
                events_are_stored_in_the_order_of_the_append,
                positions_increase_from_append_to_append_across_streams,
                the_first_position_is_beyond_the_start,
                events_of_one_append_share_an_append_id_and_single_ones_have_none,
                an_append_of_no_events_is_refused,
                an_append_with_one_empty_part_is_refused_whole,
                an_event_id_twice_in_one_append_is_refused,
                an_event_id_twice_across_the_streams_of_one_append_is_refused,
                ids_of_any_uuid_version_are_kept,
                a_refused_append_does_not_stop_the_next_one,
                a_passed_deadline_withdraws_the_append,
                a_deadline_to_come_changes_nothing,
                a_thousand_events_are_one_append,
            }
            versions {
                no_stream_holds_only_once,
                exact_zero_means_no_stream,
                the_exact_version_is_taken,
                stale_version_is_refused_and_leaves_no_trace,
                a_version_ahead_of_the_stream_is_refused,
                a_version_of_a_stream_that_is_not_there_is_refused,
                the_greatest_version_is_refused_and_never_wraps,
                a_negative_version_cannot_be_expected,
                the_last_event_is_taken,
                another_last_event_is_refused_at_any_version,
                the_last_event_may_come_with_the_same_batch,
                any_appends_at_the_end_at_every_version,
                a_stream_that_must_exist_is_taken_at_any_version_and_never_begun,
                versions_have_no_gaps_at_any_expected_version,
                streams_do_not_share_versions,
                a_conflict_is_of_its_own_family_and_worth_no_blind_retry,
                the_found_version_of_a_conflict_is_the_right_one_to_expect_next,
            }
            several_streams {
                every_stream_of_the_append_grows,
                the_answer_has_the_streams_in_the_order_of_the_append,
                one_wrong_expected_version_refuses_all_streams,
                of_two_wrong_expected_versions_the_first_is_reported,
                one_stale_event_id_refuses_all_streams,
                a_stream_twice_in_one_append_is_refused,
                events_of_all_streams_share_append_id_and_time,
                positions_rise_with_versions_in_each_stream,
                a_hundred_streams_are_one_append,
                streams_of_two_aggregate_types_with_one_id_are_two_streams,
            }
            repeat {
                same_event_ids_twice_are_one_append,
                a_duplicate_is_the_same_at_any_expected_version,
                a_repeat_gives_the_first_answer_though_the_stream_went_on,
                a_repeat_of_several_streams_gives_the_first_answer,
                a_repeat_after_time_has_passed_has_the_first_time,
                metadata_does_not_count_when_appends_are_compared,
                payloads_are_compared_as_json_values,
                an_id_with_other_content_is_refused,
                an_id_in_another_stream_is_refused,
                an_id_of_another_tenant_is_refused,
                old_ids_with_a_new_one_are_refused,
                a_part_of_an_append_is_not_that_append,
                two_appends_as_one_are_not_those_appends,
                the_same_ids_in_another_order_are_refused,
                one_stream_of_an_append_to_two_is_not_that_append,
                ids_that_were_refused_are_free,
                a_taken_id_is_named_and_not_retryable,
                a_repeat_finds_ids_among_thousands,
                a_repeat_under_the_same_request_key_is_one_append,
            }
            requests {
                the_same_request_again_has_one_effect_and_the_first_answer,
                the_first_answer_is_whole,
                a_request_is_found_only_after_its_append,
                another_request_under_the_key_is_refused,
                the_key_is_looked_up_before_the_versions,
                the_key_is_looked_up_before_the_event_ids,
                a_request_without_events_is_remembered_too,
                a_request_without_events_reserves_its_key,
                a_refused_append_leaves_its_key_free,
                each_tenant_has_its_own_keys,
                keys_are_compared_byte_for_byte,
                a_key_is_remembered_for_its_lifetime_and_no_longer,
                a_day_is_the_default_lifetime,
                an_expired_key_is_free_for_another_request,
                asking_again_does_not_lengthen_the_lifetime,
                a_lifetime_without_end_ends_with_the_calendar,
                many_expired_keys_neither_answer_nor_block,
            }
            content {
                payloads_of_every_json_type_are_returned_equal,
                integers_are_returned_exact,
                integers_beyond_64_bits_are_returned_exact,
                minus_zero_is_returned_as_zero,
                doubles_are_returned_to_the_bit,
                texts_are_returned_byte_for_byte,
                random_payloads_are_returned_equal,
                metadata_is_returned_equal,
                an_event_can_be_the_cause_of_another,
                names_and_schema_versions_are_returned_equal,
                equal_contents_under_two_ids_are_two_events,
                recorded_events_never_change,
            }
            names {
                numbers_as_names_are_texts,
                letters_of_either_case_are_different,
                spaces_make_a_difference,
                composed_and_decomposed_accents_are_different,
                characters_with_a_meaning_elsewhere_have_none_here,
                invisible_characters_make_a_difference,
                joined_and_separate_faces_are_different,
                a_name_cannot_end_a_statement,
                the_longest_names_are_taken,
            }
            bad_input {
                a_bad_tenant_is_refused,
                a_bad_aggregate_type_is_refused,
                a_bad_aggregate_id_is_refused,
                a_bad_event_name_is_refused,
                a_bad_metadata_id_is_refused,
                a_bad_request_key_is_refused,
                the_nil_event_id_is_refused,
                schema_version_zero_is_refused,
                an_event_that_was_changed_after_its_check_is_refused,
                a_reserved_metadata_name_is_refused,
                a_metadata_value_with_nul_is_refused,
                numbers_that_json_has_not_are_refused,
                numbers_beyond_doubles_are_refused,
                the_character_nul_is_refused,
                lone_surrogates_are_refused,
                a_key_twice_in_one_object_is_refused,
                text_that_is_no_json_is_refused,
                a_payload_may_be_as_deep_as_the_limit_and_no_deeper,
            }
            limits {
                the_defaults_are_those_of_every_store,
                an_event_may_be_as_large_as_the_limit_and_no_larger,
                a_mebibyte_event_is_returned_equal,
                numbers_count_as_they_are_written_out_and_what_is_taken_can_be_read,
                metadata_may_be_as_large_as_the_limit_and_no_larger,
                an_append_may_have_as_many_events_as_the_limit_and_no_more,
                ten_thousand_and_one_events_are_too_many,
                an_append_may_have_as_many_bytes_as_the_limit_and_no_more,
                a_page_holds_about_sixteen_mebibytes_and_at_least_one_event,
                a_page_holds_at_most_ten_thousand_events,
            }
            load {
                a_stream_that_is_not_there_is_empty,
                a_load_has_the_stream_alone,
                an_unused_aggregate_type_has_nothing,
                a_page_begins_after_the_version,
                a_version_beyond_the_stream_gives_nothing,
                pages_of_any_size_make_the_whole_stream,
                the_end_is_reported_correctly,
                a_load_sees_every_answered_append,
                a_load_and_the_log_give_equal_events,
                loading_twice_gives_the_same,
                a_limit_of_nothing_is_refused,
                the_greatest_limit_reads_what_is_there,
            }
            log {
                an_empty_log_gives_an_empty_page_at_the_end,
                the_log_has_every_event_once_in_the_order_of_positions,
                a_read_begins_after_the_position,
                at_the_head_there_is_nothing_to_read,
                a_position_beyond_the_head_is_ahead_of_the_log,
                an_empty_log_has_nothing_to_be_after,
                ahead_of_the_log_is_reported_with_a_filter_too,
                a_negative_position_cannot_be_read_from,
                pages_of_any_size_make_the_whole_log,
                filtered_pages_of_any_size_miss_nothing,
                the_end_of_the_log_is_reported_correctly,
                a_filter_that_matches_nothing_covers_the_whole_log,
                a_filtered_page_covers_the_log_after_its_last_event,
                a_full_filtered_page_covers_nothing_that_it_leaves_out,
                a_filter_by_tenant_gives_that_tenant,
                a_filter_by_aggregate_type_gives_that_type,
                several_aggregate_types_are_joined_by_or,
                a_filter_by_name_gives_that_name,
                several_names_are_joined_by_or,
                a_filter_by_correlation_gives_its_events,
                conditions_of_different_kinds_are_joined_by_and,
                every_combination_of_conditions_gives_the_matching_events,
                filters_compare_byte_for_byte,
                a_log_limit_of_nothing_is_refused,
                the_greatest_log_limit_reads_what_is_there,
                reading_twice_gives_the_same,
            }
            subscribe {
                catch_up_to_live_misses_nothing_and_repeats_nothing,
                a_subscription_to_an_empty_log_waits_for_the_first_event,
                a_subscription_from_the_head_gets_only_what_comes,
                a_subscription_begins_after_its_position,
                a_waiting_subscription_is_woken_by_an_append,
                a_filtered_subscription_gets_the_matching_events_only,
                every_subscriber_gets_every_event,
                all_events_of_an_append_to_several_streams_arrive,
                a_refused_append_gives_no_reader_an_event,
                a_dropped_subscription_disturbs_no_other,
                dropping_the_wait_for_an_event_loses_none,
                a_subscription_ahead_of_the_log_ends_with_that_error,
                live_pages_cover_events_that_the_filter_leaves_out,
                the_watch_wakes_for_every_append_that_follows_a_look,
            }
            streams {
                an_empty_store_lists_nothing,
                a_listing_has_every_stream_with_its_version,
                a_listing_is_ordered_by_bytes,
                a_listing_continues_after_any_stream,
                a_listing_continues_after_a_missing_stream,
                listing_pages_of_any_size_make_the_whole_list,
                a_listing_by_tenant_has_that_tenant_alone,
                a_listing_by_aggregate_type_has_that_type_alone,
                a_filtered_listing_continues_page_by_page,
                a_listing_limit_of_nothing_is_refused,
                the_greatest_listing_limit_reads_what_is_there,
            }
            tenants {
                one_name_under_two_tenants_is_two_streams,
                the_versions_of_a_tenant_are_its_own,
                an_append_to_streams_of_two_tenants_is_refused,
                a_read_of_one_tenant_has_nothing_of_another,
                a_listing_of_one_tenant_has_nothing_of_another,
                a_listing_after_a_stream_of_another_tenant_has_only_its_own,
                parts_of_names_do_not_run_into_each_other,
                a_conflict_of_one_tenant_leaves_another_alone,
                a_tenant_with_a_full_queue_slows_no_other_to_a_halt,
            }
            checkpoint {
                the_head_of_an_empty_store_is_the_start,
                the_head_is_the_last_event,
                the_start_is_always_a_good_checkpoint,
                every_event_is_a_good_checkpoint,
                another_event_at_the_position_is_a_rewound_store,
                a_checkpoint_without_an_event_id_is_refused,
                the_start_with_an_event_id_is_a_rewound_store,
                a_checkpoint_beyond_the_log_is_a_rewound_store,
                a_checkpoint_of_another_incarnation_is_a_rewound_store,
                the_checkpoints_of_pages_are_good,
                a_read_after_an_event_continues_after_it,
                a_read_after_an_event_that_is_not_there_is_a_rewound_store,
                the_incarnation_stays_while_the_log_grows,
                a_refused_append_moves_no_head,
            }
            time {
                the_recorded_time_is_the_stores_clock,
                the_answer_has_the_time_of_its_events,
                times_are_whole_microseconds_and_cut_never_rounded,
                a_clock_that_goes_back_changes_no_order,
                a_stopped_clock_blocks_nothing,
                times_far_away_are_returned_equal,
                a_clock_that_goes_back_forgets_no_request,
            }
            as_of {
                a_position_is_the_last_of_a_prefix_in_whole_appends,
                a_position_beyond_the_log_is_refused_and_so_is_a_version,
                a_time_ends_before_the_first_event_after_it_in_whole_appends,
                a_time_that_is_not_over_is_refused,
            }
            close {
                a_closed_handle_refuses_every_append,
                a_closed_handle_refuses_every_read,
                closing_twice_is_closing_once,
                a_closed_handle_still_has_its_incarnation,
                a_waiting_subscription_ends_at_the_close,
                closing_answers_every_earlier_append,
            }
            snapshots {
                a_saved_snapshot_is_found_at_its_version_and_above,
                a_snapshot_as_of_a_position_is_of_an_event_up_to_there,
                a_snapshot_of_an_event_that_the_log_does_not_have_is_not_saved,
                snapshots_of_other_keys_streams_and_tenants_are_kept_apart,
                a_snapshot_saved_again_replaces_the_first,
                snapshots_of_a_stream_are_bounded_and_the_latest_of_each_key_stays,
                nothing_of_the_log_changes_with_snapshots,
                snapshots_are_there_again_for_another_handle,
            }
            durable {
                what_was_answered_is_there_after_reopening,
                versions_and_positions_go_on_after_reopening,
                a_stale_version_is_refused_after_reopening,
                a_repeat_after_reopening_gives_the_first_answer,
                a_request_is_remembered_after_reopening,
                incarnation_and_checkpoints_hold_after_reopening,
                two_handles_see_one_log,
                a_conflict_is_found_across_handles,
                a_repeat_is_found_across_handles,
                a_subscription_gets_what_another_handle_appends,
                closing_one_handle_leaves_the_other_open,
                handles_that_race_for_a_stream_make_one_history,
            }
            cancel {
                a_dropped_append_is_whole_or_absent_and_a_duplicate_shows_which,
                a_dropped_append_disturbs_no_other,
                dropped_reads_disturb_nothing,
            }
            races {
                one_of_many_begins_a_stream,
                each_version_of_a_raced_stream_has_exactly_one_winner,
                each_append_at_any_version_gets_its_own_version,
                the_same_events_from_many_are_one_append,
                the_same_request_from_many_has_one_effect,
                a_key_that_waits_twice_has_one_effect,
                a_key_of_appends_to_several_streams_by_two_handles_has_one_effect,
                of_two_requests_under_one_key_one_is_refused,
                appends_to_the_same_streams_in_any_order_all_end,
                a_stream_is_never_begun_by_half_of_an_append,
                a_load_during_appends_is_a_prefix,
                racing_writers_never_publish_before_a_reader,
                a_subscriber_racing_eight_writers_sees_every_event_once_in_order,
                a_filtered_subscriber_among_writers_misses_nothing,
                an_append_after_an_answered_one_has_a_later_position,
                an_answered_writer_reads_its_own_write,
                aborted_writers_leave_whole_appends_and_a_working_store,
            }
        }
    };
}

macro_rules! table {
    ($($theme:ident { $($clause:ident,)* })*) => {
        /// Every clause.
        pub(super) const CLAUSES: &[Clause] = &[$($(
            Clause {
                name: concat!(stringify!($theme), "::", stringify!($clause)),
                check: |case| super::$theme::$clause(case).boxed(),
            },
        )*)*];
    };
}

__conformance_clauses! { [table] }

/// Makes a test of every clause of the contract for every store: `suite! { memory => InMemory, .. }`, where the
/// expression makes a new, empty [`Backend`](crate::conformance::Backend) for each test.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_suite {
    ($($store:ident => $backend:expr),+ $(,)?) => {$(
        #[allow(unused_imports, reason = "the expression for a backend may need them or not")]
        mod $store {
            use super::*;

            $crate::__conformance_clauses! { [$crate::__conformance_tests] ($backend) }
        }
    )+};
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ($backend:tt $($theme:ident { $($clause:ident,)* })*) => {
        $crate::__conformance_themes! { $($theme $backend { $($clause,)* })* }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_themes {
    ($($theme:ident ($backend:expr) { $($clause:ident,)* })*) => {$(
        mod $theme {
            use super::*;

            $crate::__conformance_theme! { $theme ($backend) $($clause)* }
        }
    )*};
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_theme {
    ($theme:ident ($backend:expr)) => {};
    ($theme:ident ($backend:expr) $clause:ident $($rest:ident)*) => {
        #[test]
        fn $clause() {
            $crate::conformance::run(concat!(stringify!($theme), "::", stringify!($clause)), $backend);
        }

        $crate::__conformance_theme! { $theme ($backend) $($rest)* }
    };
}
