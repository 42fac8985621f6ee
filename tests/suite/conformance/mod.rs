//! What every store must do. A store joins with a file like `sqlite.rs`: a [`kit::Harness`] that makes fresh ones, and the line `conformance!(…)`, which
//! makes every test below for it. A test that is missing in the list is an unused function, which `make lint` refuses.
//!
//! Time is a clock that the tests move: nothing waits, and nothing is tried again.

mod build;
mod kit;
mod random;
mod stages;

mod abort;
mod appends;
mod apps;
mod at_once;
mod batch_files;
mod batch_list;
mod chains;
mod chains_again;
mod claim;
mod due;
mod events;
mod failed_rows;
mod files;
mod finish;
mod groups;
mod hold;
mod keeping;
mod kinds;
mod leases;
mod mark;
mod policies;
mod quotas;
mod record;
mod results;
mod retries;
mod rounds;
mod scheduled;
mod schedules;
mod sizing;
mod submit;
mod takeover;
mod terms;
mod texts;
mod ticker;
mod ticks;
mod usage;
mod versions;
mod workers;

mod postgres;
mod sqlite;

/// The tests by subject, each a sentence about stores.
macro_rules! conformance {
    ($harness:ty) => {
        $crate::conformance::tests_of! { $harness;
            apps {
                grants_change_from_what_they_were_and_come_with_work
                an_app_comes_back_as_it_was_registered
                an_app_changes_from_what_it_was
                names_that_cannot_be_told_apart_are_refused
                an_operation_is_the_same_in_any_case_of_any_script
                an_app_at_its_limit_gets_no_lease
                what_an_app_at_its_limit_cannot_take_is_not_due
                an_app_that_a_worker_leaves_out_gets_no_lease
                batches_of_a_higher_priority_come_first
                work_is_shared_by_weight
                an_app_that_was_idle_does_not_wait_for_another
                an_app_that_was_idle_saves_up_little
                slow_queries_and_batches_are_claimed_apart
                workers_are_seen_with_what_they_run
            }
            versions {
                a_new_code_is_a_new_version
                a_version_serves_when_it_is_active_and_no_other
                a_rollback_goes_back_through_what_was_active
                a_version_that_was_removed_is_gone_and_its_number_with_it
                a_version_in_use_is_not_removed
                nothing_is_submitted_with_a_version_that_was_removed
                what_was_found_out_of_date_is_not_submitted
                code_goes_with_the_last_version_that_has_it
                a_removal_that_died_is_taken_over_by_the_next
                an_app_keeps_no_more_versions_and_code_than_it_may
                versions_are_listed_with_the_batches_that_use_them
                a_note_may_be_any_text
            }
            kinds {
                an_operation_has_a_processor_of_each_kind
                a_kind_that_is_not_served_says_whether_the_other_is
                the_same_code_is_the_newest_version_of_its_kind
                a_rollback_is_of_one_kind
                many_activations_of_one_kind_leave_the_other
                a_version_is_deactivated_and_the_other_kind_serves_on
                a_schedule_holds_the_kind_that_it_submits_to
                a_version_that_was_found_stays_when_the_other_kind_changes
            }
            submit {
                a_batch_comes_back_as_it_was_submitted
                an_op_is_stored_in_lower_case
                a_batch_without_rows_must_be_held
                a_line_of_a_batch_is_one_or_more
                a_slow_query_is_one_row_with_line_zero
                an_id_is_taken_only_once
                what_is_asked_for_again_is_there_once
                a_row_is_tried_once_at_least
                rows_are_numbered_from_one_in_the_order_they_came_in
                a_line_may_be_as_large_as_it_gets
                a_line_comes_once_in_a_batch_and_nothing_is_half_written
                a_rejected_row_is_leased_with_its_reason
                results_say_which_rows_were_rejected
                many_batches_live_side_by_side
                what_was_never_submitted_is_not_found
                what_was_committed_is_there_after_a_crash
            }
            hold {
                rows_are_appended_while_a_batch_is_held
                rows_of_two_held_batches_do_not_mix
                only_a_held_batch_takes_rows
                a_batch_past_queued_cannot_be_released
                only_a_held_batch_can_be_discarded
                a_slow_query_is_never_held
                a_released_batch_is_queued_with_all_its_rows
                releasing_a_queued_batch_changes_nothing
                an_empty_batch_cannot_be_released
                a_discarded_batch_is_gone_with_its_rows
                a_row_without_a_line_gets_one_more_than_the_highest
                of_appends_at_the_same_moment_each_comes_in_whole_with_lines_of_its_own
            }
            appends {
                the_rows_of_a_file_count_with_its_last_part
                others_are_refused_while_a_file_is_appended
                a_file_that_is_taken_back_leaves_the_batch_as_it_was
                a_file_that_was_cut_off_is_taken_back_by_whatever_comes_next
                an_append_with_a_key_comes_in_once
                of_rows_that_are_appended_beside_a_file_none_is_lost
                rows_of_a_file_with_lower_lines_hide_no_row_of_the_batch
            }
            batch_files {
                the_files_of_a_batch_are_listed_by_their_first_rows
                a_file_is_recorded_only_while_its_batch_is_held
                the_context_of_a_file_takes_the_place_of_that_of_its_batch
                another_file_that_begins_with_a_row_takes_its_place
                a_discarded_batch_is_gone_with_its_files
                the_name_of_a_file_may_be_any_text
            }
            batch_list {
                batches_are_listed_from_the_newest_on_as_they_are
                batches_are_found_by_all_that_a_filter_names
                batches_are_found_by_the_name_and_the_digest_of_a_file
                a_page_of_batches_is_bounded_in_work
                files_of_other_apps_do_not_hide_those_of_an_app
            }
            quotas {
                a_batch_has_no_more_rows_than_its_app_may_have
                an_input_is_no_larger_than_its_app_may_have
                an_app_has_no_more_rows_without_an_outcome_than_it_may_have
                what_was_submitted_before_brings_no_more_rows
                rows_that_come_in_at_the_same_moment_are_no_more_than_may_be
                logs_beyond_those_of_a_batch_are_dropped_and_counted
                output_files_become_no_larger_than_those_of_a_batch_may
                a_batch_that_runs_for_too_long_is_aborted
            }
            usage {
                usage_is_the_sum_of_the_outcomes_also_after_retries_and_takeovers
                usage_is_told_apart_by_hour_operation_and_version
            }
            at_once {
                a_query_that_comes_with_a_lease_is_as_if_it_had_been_claimed
                a_query_whose_worker_dies_is_taken_over_however_it_was_leased
                a_query_does_not_come_before_one_that_waits
                what_claims_count_for_is_left_to_them
                a_query_that_is_asked_for_again_is_leased_once
            }
            claim {
                a_claim_takes_the_next_rows_in_order
                leased_rows_come_as_they_were_submitted
                many_claims_cover_every_row_exactly_once
                claims_at_the_same_moment_never_overlap
                a_claim_gives_no_more_leases_than_asked_for
                a_claim_of_no_rows_still_gives_one
                an_empty_store_has_nothing_to_claim
                held_batches_are_not_claimed
                the_oldest_batch_is_claimed_first
                the_first_claim_starts_a_batch
            }
            sizing {
                the_first_leases_of_a_batch_are_small
                fast_rows_make_leases_as_large_as_allowed
                slow_rows_make_small_leases
                rows_slower_than_the_target_come_one_by_one
                rows_that_become_slower_make_smaller_leases
                a_few_rows_of_unknown_speed_spread_over_all_slots
                the_last_rows_of_a_batch_spread_over_all_slots
                a_worker_with_larger_targets_gets_larger_leases
                a_record_of_nothing_says_nothing_about_speed
                a_batch_begins_with_the_speed_of_the_one_before
                the_speed_of_another_version_says_nothing
            }
            leases {
                large_rows_come_in_parts
                a_row_of_any_size_comes_alone_at_least
                only_rows_without_an_outcome_are_read
                a_key_that_was_never_given_opens_nothing
                a_lease_lives_until_its_time_and_no_longer
                a_lease_that_is_renewed_lives_on
                a_renewal_counts_from_now
                a_renewal_names_the_leases_that_were_lost
                a_lease_given_back_can_be_claimed_at_once_and_counts_no_crash
                a_lease_given_back_keeps_the_crashes_it_had
                a_lost_lease_is_not_given_back
                leases_that_ended_are_claimed_before_fresh_rows
                a_lease_is_no_larger_than_asked_for_whoever_held_it_before
                a_worker_without_a_name_holds_its_leases_like_any_other
                a_lease_may_live_as_long_as_time_goes
            }
            takeover {
                a_stale_lease_cannot_record
                the_old_key_of_a_lease_that_was_taken_over_opens_nothing
                a_takeover_counts_a_crash_and_an_attempt
                a_takeover_holds_only_what_was_not_recorded
                after_two_crashes_the_rows_of_a_lease_are_leased_one_by_one
                the_row_that_kills_workers_is_found
                a_lease_that_was_split_can_be_given_back
                one_claim_takes_over_as_many_leases_as_it_asks_for
                a_lease_that_ended_does_not_revive
            }
            record {
                results_are_recorded_in_parts
                an_outcome_comes_back_as_it_was_recorded
                a_lease_ends_with_its_last_row
                a_lease_records_its_next_rows_and_no_others
                a_row_ends_with_success_or_failed_and_nothing_else
                a_record_of_nothing_changes_nothing
                only_the_last_record_of_a_batch_is_the_last
                a_batch_is_not_over_while_rows_were_never_claimed
                a_record_touches_no_other_batch
                fuel_of_all_records_is_summed_up
                large_leases_are_recorded_at_once
            }
            retries {
                a_retry_is_claimed_when_it_is_due_and_not_before
                each_retry_is_another_attempt
                a_batch_does_not_end_while_a_retry_waits
                a_leased_row_carries_its_input_when_it_is_retried
                retries_of_one_lease_may_come_due_at_different_times
                a_lease_of_retries_is_no_larger_than_asked_for
                a_few_retries_spread_over_all_slots
                retries_that_are_due_come_before_fresh_rows
                retries_of_several_batches_never_share_a_lease
                retries_are_recorded_in_parts
                a_lease_of_retries_records_its_next_rows_and_no_others
                a_crash_while_a_retry_runs_is_an_attempt
                a_retry_given_back_is_the_same_attempt
                after_two_crashes_retries_are_leased_one_by_one
                the_retries_of_an_aborted_batch_vanish
                a_slow_query_is_retried_like_a_row
            }
            abort {
                a_batch_is_aborted_at_every_stage_before_its_last_outcome
                a_batch_with_all_its_outcomes_is_not_changed_by_an_abort
                the_first_reason_of_an_abort_stays
                an_empty_held_batch_can_be_aborted
                nothing_is_recorded_after_an_abort
                rows_without_an_outcome_are_aborted_with_their_batch
                an_aborted_batch_is_finished_like_any_other
                an_abort_touches_no_other_batch
                of_an_abort_and_the_last_record_at_the_same_moment_one_wins
            }
            finish {
                a_batch_is_joined_then_marked_then_done
                who_records_the_last_outcome_can_have_the_batch_to_finish
                a_finisher_that_goes_silent_is_replaced
                a_batch_with_rows_left_is_not_finished
                one_worker_at_a_time_finishes_a_batch
                several_batches_are_finished_side_by_side_the_oldest_first
                a_finish_lease_that_ended_is_taken_over
                a_finish_lease_that_ended_records_nothing
                a_lost_finish_lease_is_not_given_back
                a_finish_lease_that_is_renewed_lives_on
                a_finish_lease_given_back_is_no_attempt
                a_finish_lease_given_back_for_later_waits_and_is_no_attempt
                a_lease_for_one_step_does_not_end_the_other
                a_lease_of_one_batch_does_not_finish_another
                a_batch_ends_as_the_worst_of_its_rows
                the_error_of_mark_done_can_be_seen
                a_slow_query_is_finished_like_a_batch
                a_finished_batch_stays_as_it_is
            }
            mark {
                a_call_that_asks_for_another_is_followed_by_one_when_it_is_due
                a_batch_whose_next_call_is_not_due_holds_up_no_other
                a_call_whose_worker_died_is_a_call
                what_calls_wrote_and_how_they_failed_is_kept
                a_page_of_large_logs_of_calls_is_shorter
                each_round_has_calls_of_its_own
                logs_of_calls_are_among_what_a_batch_may_log
                calls_are_pruned_with_the_outcomes
            }
            files {
                a_name_is_listed_once_however_many_rows_write_to_it
                names_belong_to_their_batch
                names_differ_in_every_letter
                a_batch_has_only_so_many_files
                a_file_without_text_does_not_come_to_be_and_takes_no_place
                the_files_of_several_rows_are_limited_together
                a_lost_lease_is_not_told_about_files
                files_can_be_seen_once_they_were_joined
                files_of_an_aborted_batch_can_be_seen_too
                only_files_of_the_batch_are_recorded
                the_order_of_names_and_pieces_is_the_same_for_each_attempt_to_join
            }
            results {
                results_come_in_line_order_whatever_the_page
                lines_that_stop_growing_in_a_later_append_are_sorted_too
                a_cursor_stays_good_when_lines_stop_growing
                a_page_of_nothing_and_a_page_past_the_end_are_empty
                a_row_has_no_status_before_it_has_an_outcome
                a_page_of_large_rows_is_shorter
                pieces_come_in_line_order_whatever_the_page
                a_page_of_large_pieces_is_shorter
                a_retry_leaves_no_result_behind
            }
            texts {
                every_text_comes_back_as_it_was_given
                a_nul_is_a_character_like_any_other
                a_text_may_have_a_mebibyte
                json_is_kept_to_the_letter
                a_text_that_is_absent_is_not_an_empty_one
                a_row_may_be_several_mebibytes
            }
            due {
                nothing_is_due_when_nothing_is_leased_or_retried
                a_lease_is_due_when_it_ends
                a_retry_is_due_at_its_time
                a_batch_to_be_finished_is_due_at_once_or_when_its_lease_ends
                the_first_of_many_is_due
                what_an_abort_removes_is_not_due
            }
            policies {
                a_policy_comes_back_as_it_was_set
                a_policy_changes_from_what_it_was
                a_policy_that_cannot_be_is_refused
                the_terms_of_an_operation_go_before_those_of_its_app
                what_is_paused_is_not_leased
                retries_and_leases_that_ended_wait_while_they_are_paused
                a_paused_batch_can_be_aborted_and_finished
                no_more_rows_are_leased_than_the_rate_allows
                rates_of_an_operation_and_of_its_app_hold_both
                rates_may_be_slower_than_a_row_per_second
                a_rate_that_nothing_waits_for_is_not_due
                what_is_beyond_a_rate_is_due_when_there_is_work_of_a_tenth_of_a_second
                retries_and_takeovers_count_for_the_rate
                a_lease_that_ended_is_taken_over_in_parts_where_the_rate_allows_no_more
                a_rate_that_is_taken_back_holds_nothing_up
                claims_at_the_same_moment_share_a_rate
                other_operations_of_an_app_go_on
            }
            terms {
                a_batch_is_not_claimed_before_its_start
                a_start_that_has_passed_holds_nothing_up
                a_start_is_due_at_its_time
                a_held_batch_waits_for_its_release_and_its_start
                a_batch_that_is_aborted_before_its_start_never_starts
                a_batch_cannot_start_after_its_deadline
                the_rows_that_have_not_ended_by_the_deadline_are_aborted
                a_batch_with_all_its_outcomes_has_no_deadline
                more_failures_than_may_be_abort_the_batch
                a_record_that_goes_beyond_the_limit_of_failures_is_kept_whole_and_the_reason_says_so
                as_many_failures_as_may_be_change_nothing
                a_batch_whose_last_rows_fail_has_ended_and_is_not_aborted
                a_retry_is_no_failure
                a_priority_can_be_changed_while_rows_wait
                the_priority_of_a_batch_that_has_its_outcomes_stays
                a_deadline_passes_while_rows_are_leased_and_retried
            }
            chains {
                the_outputs_of_a_batch_become_the_rows_of_the_next
                a_batch_may_come_after_one_that_has_ended
                a_condition_that_is_not_met_aborts_the_next
                what_cannot_come_after_is_refused_and_nothing_is_there
                a_chained_batch_is_not_filled_or_released_by_hand
                a_first_batch_that_is_discarded_aborts_the_next
                the_terms_of_a_chained_batch_are_its_own
                many_outputs_are_made_in_steps_whoever_makes_them
                a_step_of_large_outputs_is_shorter
                a_first_batch_that_is_retried_is_waited_for_or_was_taken_as_it_was
                an_output_that_is_absent_is_null
                of_an_end_and_a_submission_at_the_same_moment_none_is_missed
            }
            chains_again {
                what_was_aborted_because_of_a_batch_runs_when_that_succeeds_in_a_later_round
                what_was_aborted_because_of_a_batch_is_aborted_again_when_that_fails_again
                a_batch_that_has_just_been_aborted_because_of_another_waits_again
                a_chained_batch_that_somebody_aborted_waits_again_when_it_is_retried
                a_chained_batch_that_would_be_aborted_again_is_not_retried
                a_chained_batch_that_was_aborted_while_it_was_made_is_made_anew
                a_deadline_that_has_passed_does_not_hold_for_a_batch_that_waits_again
                retries_along_a_chain_at_the_same_moment_all_end
                a_retry_lets_at_most_a_thousand_batches_wait_again
            }
            failed_rows {
                failed_rows_are_listed_from_the_newest_batch_on
                failed_rows_are_listed_by_code_operation_and_time
                failed_rows_are_those_of_the_round_that_a_batch_is_in
                failed_rows_are_listed_as_far_as_they_are_kept
                a_page_of_failed_rows_is_bounded_in_bytes_and_in_work
            }
            groups {
                a_group_ends_when_it_is_sealed_and_each_batch_is_done
                a_sealed_group_ends_with_the_last_of_its_batches
                what_is_retried_in_a_group_that_has_ended_does_not_take_that_back
                nothing_comes_into_a_sealed_group
                an_aborted_batch_is_done_and_a_discarded_one_is_in_no_group
                groups_are_listed_by_name_in_pages
                a_batch_is_kept_until_its_group_has_ended_and_from_then_on
                a_batch_of_a_group_that_is_removed_by_hand_is_in_it_no_longer
                of_a_seal_and_many_submissions_at_the_same_moment_none_comes_later
                of_a_seal_and_the_last_ends_at_the_same_moment_one_ends_the_group
            }
            rounds {
                the_failed_rows_of_a_batch_are_run_again_in_a_new_round
                only_rows_with_a_code_are_run_again
                what_the_rounds_before_came_to_stays
                a_batch_that_was_aborted_is_run_again_with_its_aborted_rows
                a_batch_that_never_ran_can_be_run_after_its_abort
                what_cannot_be_retried_is_refused_and_stays
                files_are_joined_anew_in_each_round
                keys_of_the_round_before_open_nothing
                a_round_can_be_aborted_and_retried_again
                a_deadline_that_has_passed_does_not_hold_in_a_new_round
                a_limit_of_failures_counts_what_is_failed_now
                of_many_retries_at_the_same_moment_one_begins_a_round
                a_round_is_there_after_a_crash
            }
            workers {
                two_last_records_at_the_same_moment_end_a_batch_once
                counts_are_right_after_many_records_at_the_same_moment
                one_lease_recorded_twice_at_the_same_moment_counts_once
                a_takeover_and_a_late_record_at_the_same_moment_record_once
                of_many_claims_at_the_same_moment_one_finishes_each_step
                many_workers_record_each_row_once_and_finish_each_batch_once
            }
            events {
                the_events_of_a_batch_come_in_order
                a_slow_query_has_its_events
                an_abort_is_told_with_its_reason
                failed_rows_are_told_once_a_second_and_the_others_counted
                more_failures_than_may_be_are_told_before_the_abort
                a_reader_goes_on_behind_any_position
                the_events_of_an_app_are_its_own
                a_batch_that_is_gone_has_no_events
                what_is_submitted_again_is_told_once
                events_are_pruned_by_themselves_and_with_their_batch
            }
            keeping {
                how_long_batches_are_kept_comes_back_as_it_was_said
                only_batches_that_are_done_are_pruned
                the_oldest_batch_that_is_due_goes_first_and_no_other
                outcomes_that_were_pruned_say_so_and_the_summary_stays
                inputs_that_were_pruned_leave_the_outcomes
                files_that_were_pruned_are_named_until_they_are_gone
                a_batch_goes_with_all_that_is_left_of_it
                a_key_lasts_as_long_as_its_batch
                lines_in_any_order_go_too
                what_is_left_in_the_middle_is_gone_on_with_later
                those_who_prune_at_the_same_moment_take_up_different_batches
                an_object_of_several_batches_goes_with_the_last
                what_is_due_is_counted
                what_earlier_rounds_left_goes_with_the_rest
                what_has_not_its_outcomes_any_more_is_not_run_again
                what_others_come_after_is_kept_until_they_have_their_rows
                operations_with_batches_that_are_done_are_listed_in_pages
            }
            scheduled {
                a_schedule_comes_back_as_it_was_registered
                a_schedule_that_is_changed_keeps_what_its_ticks_did
                a_tick_of_a_cron_line_that_stays_is_not_lost_by_a_change
                a_schedule_that_cannot_be_is_refused_and_nothing_is_stored
                schedules_are_listed_by_app_and_name_in_pages
            }
            ticks {
                ticks_come_in_their_order_and_not_while_paused
                a_tick_submits_the_batch_with_its_rows_and_moves_on
                a_tick_submits_a_slow_query_too
                a_tick_that_is_not_the_next_one_does_nothing
                a_tick_of_a_schedule_that_was_changed_does_nothing
                a_removed_schedule_leaves_its_batches_and_has_no_ticks
                a_schedule_made_again_is_another_one
                ticks_go_forward_only
                a_tick_that_fails_says_why_until_the_next
                a_missed_tick_moves_on_without_a_batch
                a_tick_that_nobody_can_follow_pauses_its_schedule
                a_tick_is_skipped_while_the_batch_before_it_runs
                a_tick_whose_batch_is_there_moves_on
                of_many_who_take_up_a_tick_at_the_same_moment_one_does
                a_change_and_a_tick_at_the_same_moment_do_not_mix
                a_tick_that_is_dropped_in_the_middle_does_all_or_nothing
                what_a_tick_did_is_there_after_a_crash
            }
            ticker {
                what_is_due_is_submitted_with_the_active_processor
                missed_ticks_are_skipped_submitted_once_or_each
                of_more_missed_ticks_than_a_hundred_the_last_are_submitted
                a_tick_without_a_processor_says_so_and_the_next_is_submitted
                ticks_go_to_the_kind_that_their_schedule_means
                a_schedule_whose_zone_is_gone_is_paused_and_stops_no_other
                many_tickers_submit_each_tick_once
            }
            schedules {
                random_schedules_keep_every_promise
                a_store_that_breaks_a_promise_is_caught
            }
        }
    };
}

macro_rules! tests_of {
    ($harness:ty; $($subject:ident { $($test:ident)* })*) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                $crate::conformance::$subject::$test($crate::conformance::kit::Kit::fresh::<$harness>().await).await;
            }
        )*)*
    };
}

use {conformance, tests_of};
