//! What a user of projections can see, wherever the events and the read models are.

#[cfg(test)]
mod backends;
#[cfg(test)]
mod deploy;
#[cfg(test)]
mod everywhere;
#[cfg(test)]
mod evolving;
#[cfg(test)]
mod find_as_of;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod reads;
#[cfg(test)]
mod restored;
#[cfg(test)]
mod retried;
#[cfg(test)]
mod shop;

/// One list, so that no pair of databases can miss a test.
macro_rules! everywhere {
    ($($test:ident,)*) => {
        everywhere!(in_one_file => Backend::in_one_file(); $($test,)*);
        everywhere!(in_two_files => Backend::in_two_files(); $($test,)*);
        everywhere!(in_one_postgres => Backend::in_one_postgres().await; $($test,)*);
        everywhere!(in_two_postgres => Backend::in_two_postgres().await; $($test,)*);
        everywhere!(events_in_a_file_views_in_postgres => Backend::events_in_a_file_views_in_postgres().await; $($test,)*);
        everywhere!(events_in_postgres_views_in_a_file => Backend::events_in_postgres_views_in_a_file().await; $($test,)*);
    };
    ($place:ident => $backend:expr; $($test:ident,)*) => {
        #[cfg(test)]
        mod $place {
            use crate::backends::Backend;

            $(#[test]
            fn $test() {
                let backend = crate::backends::block_on(async { $backend });
                crate::everywhere::$test(backend);
            })*
        }
    };
}

everywhere! {
    read_models_are_tables_that_follow_the_events,
    a_restart_continues_and_a_broken_event_stops_one_projection_alone,
    two_processes_apply_every_event_once,
    events_that_cancel_out_are_each_applied_once_by_two_processes,
    whenever_the_process_dies_rows_and_checkpoint_agree,
    another_shape_needs_a_raised_version_which_is_shown_when_it_is_complete,
    a_raised_version_takes_the_name_under_load_and_no_event_that_was_seen_is_gone,
    a_table_that_somebody_drops_stops_its_projection_and_says_so,
    events_of_many_writers_are_each_counted_once,
    events_that_changed_are_folded_as_what_they_mean_today,
    whenever_the_process_dies_mails_are_sent_again_under_their_keys_and_none_is_missing,
}
