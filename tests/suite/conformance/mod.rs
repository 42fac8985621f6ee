//! What every store must do. A further store needs one line: `for_store!(name, fresh)`.

mod finish;
mod leases;
mod support;

/// Makes every test for one store, from an async function that makes a fresh [`support::Fresh`].
macro_rules! for_store {
    ($store:ident, $fresh:path) => {
        mod $store {
            for_store!(@leases $fresh; a_batch_needs_rows_unless_it_is_held, appended_rows_are_run_only_after_the_release,
                claims_cover_every_row_once, a_stale_lease_cannot_record, a_lease_that_was_taken_over_opens_nothing_to_its_old_owner,
                rows_of_a_lease_that_was_given_back_are_at_their_first_attempt, after_two_crashes_rows_are_leased_one_by_one,
                results_must_be_the_next_rows_of_the_lease, a_retry_waits_until_it_is_due_and_counts_its_attempt,
                a_claim_never_gives_more_leases_than_were_asked_for, large_rows_are_read_in_parts);
            for_store!(@finish $fresh; counts_equal_outcomes_and_the_last_record_says_so, two_last_records_at_once_finish_a_batch_once,
                an_abort_keeps_what_was_recorded_and_refuses_the_rest, a_final_batch_is_not_aborted, each_step_has_one_winner_and_is_taken_over_when_it_ends,
                results_are_in_line_order_whatever_came_first, a_batch_has_only_so_many_output_files);
        }
    };
    (@$part:ident $fresh:path; $($test:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                crate::conformance::$part::$test($fresh().await).await;
            }
        )+
    };
}

for_store!(sqlite, crate::conformance::support::sqlite);
