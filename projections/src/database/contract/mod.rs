//! What every database of read models must do, as tests that run on each.
//!
//! Those of rows run also on the read models in memory, so that tests of the runner rest on checked parts.

mod backends;
mod everything;
mod leases;
mod names;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod reads;
mod rows;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod schema;

#[cfg(feature = "sqlite")]
pub(crate) use backends::InFile;
#[cfg(feature = "postgres")]
pub(crate) use backends::InPostgres;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use backends::SqlBackend;
pub(crate) use backends::{Backend, InMemory, LookUp};
pub(crate) use everything::{
    EVERYTHING, MODEL, checkpoint, incarnation, key, place, prepare, row, shape_of, unit, unowned, work,
};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) use reads::{LATEST, LISTED};
#[cfg(feature = "postgres")]
pub(crate) use rows::random_json;

macro_rules! clauses {
    ($backend:expr => $theme:ident: $($clause:ident,)*) => {$(
        #[tokio::test]
        async fn $clause() {
            crate::database::contract::$theme::$clause(&$backend).await;
        }
    )*};
}

macro_rules! clauses_of_rows {
    ($backend:expr) => {
        clauses! {
            $backend => rows:
            every_type_comes_back_as_it_was_written,
            the_extremes_of_every_type_come_back,
            random_values_come_back_in_their_normal_form,
            any_number_of_rows_is_written_loaded_and_removed_exactly,
            rows_are_removed_by_what_their_keys_begin_with_before_others_are_written,
            a_row_written_again_replaces_the_first,
            a_table_of_keys_alone_is_written_and_removed,
            rows_larger_than_a_message_should_be_are_written,
            values_as_long_as_an_index_may_hold_are_written,
            a_part_whose_checkpoint_stands_elsewhere_writes_nothing_and_the_others_do,
            rows_are_loaded_only_where_the_checkpoint_stands,
            parts_are_answered_in_the_order_in_which_they_came,
            preparing_twice_continues_from_the_stored_checkpoint,
            of_two_that_commit_at_once_one_is_overtaken,
        }
        clauses! {
            $backend => names:
            the_name_moves_up_by_itself_and_down_only_on_request,
            the_name_never_moves_to_a_version_that_has_read_less,
            other_events_or_another_tenant_are_another_shape,
        }
        clauses! {
            $backend => leases:
            a_unit_has_one_owner_and_the_next_one_fences_it,
            whoever_seizes_a_unit_keeps_it_only_until_it_is_seized_again,
            a_lease_ends_by_itself_unless_it_is_renewed,
            runners_see_each_other_until_they_leave,
            a_pause_holds_for_every_version_until_it_is_ended,
            slots_have_owners_and_places_of_their_own,
        }
    };
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
macro_rules! clauses_of_schemas {
    ($backend:expr) => {
        clauses! {
            $backend => schema:
            every_column_can_be_queried,
            rows_and_checkpoint_commit_together_or_not_at_all,
            the_part_that_is_refused_is_named,
            a_commit_that_is_dropped_at_any_moment_leaves_rows_and_checkpoint_in_step,
            another_shape_under_the_same_version_is_refused,
            a_bool_declared_as_an_integer_is_refused_under_the_same_version,
            a_table_that_somebody_altered_is_refused,
            a_version_whose_table_somebody_dropped_is_built_anew,
            names_that_belong_to_something_else_are_refused,
            a_table_without_its_checkpoint_is_built_anew_once_it_was_dropped,
            a_raised_version_has_its_own_table_and_is_shown_on_request,
            a_version_with_more_columns_is_shown_and_taken_back,
            a_raised_version_has_the_columns_that_the_name_shows,
            indexes_are_added_and_never_removed,
            a_view_that_somebody_changed_or_dropped_by_hand_is_noticed,
            what_was_dropped_is_kept_with_who_and_why,
            names_as_long_as_they_may_be_are_prepared_again_and_again,
            several_handles_may_prepare_at_once,
        }
        clauses! {
            $backend => reads:
            rows_are_found_by_key_and_by_condition_as_they_were_written,
            nothing_is_read_of_a_version_that_was_not_expected,
        }
    };
}

mod in_memory {
    clauses_of_rows!(super::InMemory::default());
}

#[cfg(feature = "sqlite")]
mod in_file {
    clauses_of_rows!(super::InFile::new().await);
    clauses_of_schemas!(super::InFile::new().await);
}

#[cfg(feature = "postgres")]
mod in_postgres {
    clauses_of_rows!(super::InPostgres::new().await);
    clauses_of_schemas!(super::InPostgres::new().await);
}

#[cfg(feature = "postgres")]
mod behind_a_pooler {
    clauses_of_rows!(super::InPostgres::behind_a_pooler().await);
    clauses_of_schemas!(super::InPostgres::behind_a_pooler().await);
}
