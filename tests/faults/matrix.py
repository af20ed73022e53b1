"""The faults that the engine is held against, and the tests that bring each about. `test_matrix` checks that the tests are there."""

from __future__ import annotations

__all__ = ["LATER", "ROWS"]

#: Fault -> tests, by name.
ROWS: dict[str, tuple[str, ...]] = {
    # workers
    "F1 SIGKILL in mid-handler": (
        "test_a_process_killed_around_its_handler_costs_one_delivery",
        "test_a_process_killed_as_it_claims_strands_nothing",
        "test_the_job_of_a_killed_worker_completes_elsewhere",
    ),
    "F2 SIGKILL between effect and acknowledgement": ("test_a_kill_around_an_effect_costs_what_its_mode_promises",),
    "F3 SIGKILL between reservation and effect": ("test_a_kill_around_an_effect_costs_what_its_mode_promises",),
    "F4 SIGSTOP beyond the lease, then SIGCONT": ("test_whatever_a_zombie_says_is_refused", "test_the_end_of_a_zombie_is_refused"),
    "F5 SIGSTOP inside the guarded call": ("test_a_process_frozen_inside_its_effect_does_it_once",),
    "F6 out of memory": ("test_memory_beyond_the_limit_fails_the_attempt",),
    "F7 poison": (
        "test_poison_takes_nobody_along",
        "test_isolated_crashes_cost_no_worker",
        "test_a_crash_is_an_attempt_that_failed",
    ),
    "F8 hung handler": (
        "test_whatever_a_handler_does_it_ends_at_its_time",
        "test_a_process_with_a_stuck_handler_is_replaced_while_its_other_jobs_end",
        "test_a_process_whose_interpreter_stands_still_is_killed",
        "test_a_thread_that_outlives_its_time_is_interrupted_and_lives_on",
        "test_a_thread_that_does_not_stop_is_given_up_and_its_process_retires",
        "test_a_coroutine_that_holds_up_the_loop_is_interrupted",
        "test_a_coroutine_that_no_exception_reaches_retires_the_process",
    ),
    "F9 threads vanish": (
        "test_threads_that_die_at_their_boot_are_replaced",
        "test_a_consumer_that_dies_at_its_boot_is_noticed",
        "test_a_guard_that_raises_lets_nothing_run",
        "test_slots_survive_whatever_handlers_and_hooks_raise",
    ),
    "F10 drain": ("test_sigterm_lets_fifty_running_jobs_end", "test_a_drain_hands_back_what_has_not_begun_and_lets_the_rest_end"),
    "F11 drain longer than its grace": ("test_what_does_not_fit_the_grace_runs_again_once_elsewhere",),
    "F12 storm of signals": ("test_a_storm_of_signals_ends_the_whole_family", "test_signals_at_any_moment_of_the_start_end_it"),
    # the store
    "F13 restart of the store": (
        "test_a_store_that_is_killed_under_load_loses_nothing",
        "test_the_store_is_killed_and_restarted_while_jobs_run",
    ),
    "F14 store away": (
        "test_a_store_that_is_down_for_seconds_under_load",
        "test_killed_store_is_503_and_recovers",
        "test_results_are_held_while_nothing_answers",
    ),
    "F15 slow store": ("test_a_slow_road_costs_time_only",),
    "F16 reply lost after the script ran": (
        "test_the_reply_of_every_script_may_be_lost",
        "test_every_script_has_a_repeat_here",
        "test_every_other_answer_is_lost",
    ),
    "F17 connection cut in mid-request": (
        "test_a_client_that_resends_is_none_the_wiser",
        "test_connections_are_cut_again_and_again",
        "test_late_reply_answers_no_other_question",
    ),
    "F18 blackhole": ("test_silent_store_is_503_within_the_time_out", "test_results_are_held_while_nothing_answers"),
    "F19 one worker cut off": ("test_requests_pass_and_answers_do_not",),
    "F20 requests pass, replies do not": ("test_requests_pass_and_answers_do_not",),
    "F21 failover to a replica that lags": ("test_a_lagging_replica_is_promoted",),
    "F22 a store that went back in time": (
        "test_a_store_that_went_back_in_time_is_noticed_and_swept",
        "test_strict_durability_takes_nothing_that_would_not_be_on_disk",
    ),
    "F24 out of memory": (
        "test_a_store_without_memory_drains",
        "test_a_full_store_refuses_new_jobs_and_lets_work_end",
        "test_full_store_is_503_and_nothing_is_stored",
    ),
    "F25 full disk": ("test_a_full_disk_refuses_and_recovers",),
    "F26 wrong policy": (
        "test_a_policy_that_is_changed_later_is_told",
        "test_damage_is_mended_and_reported",
        "test_a_damaged_store_under_running_workers_is_swept_and_told",
        "test_evicting_store_is_refused",
    ),
    "F27 SCRIPT FLUSH, FUNCTION FLUSH, FLUSHALL": (
        "test_a_foreign_script_that_blocks_is_waited_for",
        "test_an_emptied_store_is_told_not_passed_over",
        "test_scripts_are_flushed_under_load",
        "test_an_emptied_store_is_served_again",
    ),
    "F29 foreign keys": (
        "test_a_foreign_key_is_reported_and_stops_nothing",
        "test_each_key_of_a_wrong_type_is_told_and_left_alone",
        "test_a_foreign_key_stops_a_script_before_its_first_write",
    ),
    # the API
    "F30 API killed in mid-request": ("test_an_api_killed_before_or_after_it_stored",),
    "F31 one key a hundred times": (
        "test_a_hundred_equal_submissions_over_four_apis_that_lose_answers",
        "test_hundred_equal_requests_over_two_processes_make_one_job",
    ),
    "F32 one key, two payloads": ("test_two_payloads_race_for_one_key",),
    "F33 bulk with a bad item, or cut off": (
        "test_a_bulk_whose_answer_is_lost_is_completed_by_its_repeat",
        "test_independent_bulk_refuses_only_what_is_wrong",
        "test_atomic_bulk_is_all_or_nothing",
    ),
    # schedules
    "F35 killed between job and next instant": (
        "test_a_kill_between_any_two_steps_costs_nothing",
        "test_what_three_schedulers_fire_is_what_the_oracle_says",
    ),
    "F36 several schedulers, the leader paused": (
        "test_a_leader_that_is_stopped_beyond_its_lease_doubles_nothing",
        "test_what_a_paused_leader_still_sends_changes_nothing",
        "test_a_schedule_fires_at_each_instant_once",
    ),
    "F37 clocks that jump": (
        "test_the_clock_of_a_scheduler_does_not_matter",
        "test_what_three_schedulers_fire_is_what_the_oracle_says",
        "test_a_clock_that_goes_back_fires_nothing_again",
        "test_a_clock_that_jumps_ahead_makes_no_burst",
    ),
    "F38 days when clocks change": (
        "test_instants_around_every_change_of_clocks_are_those_of_the_oracle",
        "test_every_zone_on_the_days_when_its_clocks_change_is_that_of_the_oracle",
        "test_every_zone_for_a_year_is_that_of_the_oracle",
        "test_what_runs_in_every_hour_goes_by_elapsed_time",
        "test_the_nine_oclock_report_of_new_york_over_the_days_when_clocks_change",
        "test_the_nine_oclock_report_of_new_york",
    ),
    "F39 instants that were missed": (
        "test_six_hours_down_over_six_hourly_runs",
        "test_six_hours_down_over_hourly_runs",
        "test_every_instant_is_either_run_or_counted_as_missed",
        "test_a_store_that_is_killed_and_restarted_loses_no_instant",
    ),
    "F40 edited, paused, deleted while it fires": (
        "test_nothing_is_fired_of_what_was_changed_meanwhile",
        "test_a_change_that_meets_a_fire_is_decided_anew",
        "test_a_change_is_answered_between_the_decision_and_the_step",
        "test_changes_from_all_sides_while_sixty_schedules_fire",
        "test_an_instant_that_stands_there_unfired_outlives_an_edit",
    ),
    "F41 APScheduler's own stores and triggers": ("test_apscheduler_keeps_no_schedules", "test_monday_is_monday"),
    # plugins
    "F42 plugin that cannot be imported": ("test_a_plugin_that_fails_stops_nobody", "test_a_plugin_that_fails_does_not_stop_the_others"),
    "F43 hooks that raise or hang": ("test_an_on_init_that_hangs_is_abandoned_at_its_limit", "test_shutting_down_as_a_whole_is_bounded"),
    "F44 plugins that clash, or change what is everybody's": (
        "test_of_two_plugins_with_one_type_the_first_by_name_has_it_in_whatever_order_they_come",
        "test_signal_handlers_and_the_working_folder_are_put_back",
    ),
    "F45 plugins that leak": ("test_a_process_retires_after_its_jobs", "test_a_process_retires_at_its_size"),
    "F46 results that cannot be kept": ("test_a_result_that_cannot_be_kept_is_dead_and_its_effect_not_repeated",),
    "F47 hostile exceptions": ("test_nothing_that_a_handler_raises_hurts_its_process",),
    "F48 two versions of a plugin": ("test_two_versions_of_a_plugin_side_by_side", "test_only_loaded_types_are_claimed"),
    # data
    "F49 hostile bodies": ("test_bad_body_is_a_problem_and_stores_nothing", "test_hostile_body_is_refused_quickly"),
    "F50 hostile names": ("test_no_name_leaves_its_place_among_the_keys",),
    # races
    "F51 cancel against completion": ("test_cancel_against_claim_and_completion",),
    "F52 cancel against claim and promotion": ("test_cancel_against_claim_and_completion", "test_cancel_against_retry_and_promotion"),
    "F53 retry against the end of the lease": ("test_a_failure_against_the_reaper",),
    "F54 replays that race": (
        "test_request_id_makes_a_replay_safe_to_repeat",
        "test_two_steps_at_once_are_one",
        "test_one_of_two_causes_is_mended_and_replayed",
        "test_a_step_that_died_before_its_note_makes_no_duplicates",
        "test_a_store_that_goes_away_in_the_middle_holds_an_operation_up",
        "test_a_bulk_discard_killed_in_the_middle_goes_on",
    ),
    "F55 replay of what was done, or of what nobody knows": (
        "test_a_replay_meets_the_effect_of_the_first",
        "test_open_effects_are_skipped_and_counted",
        "test_a_discarded_letter_lets_its_lineage_go",
    ),
    "F57 retention against all else": (
        "test_rounds_keep_up_with_retention",
        "test_rounds_keep_below_the_bytes",
        "test_what_was_discarded_is_not_made_anew",
        "test_the_scripts_behave_as_the_model_says",
    ),
    "F58 clocks that differ": ("test_late_clock_is_set_and_tried_again",),
    "F59 nobody reads the logs, or takes the traces": (
        "test_a_log_pipe_that_nobody_reads_holds_up_nothing",
        "test_a_collector_that_answers_nothing_costs_nothing_but_its_spans",
    ),
}
#: Faults of what is not built or not brought about yet.
LATER: dict[str, str] = {
    "F23": "a torn append-only file",
    "F28": "a store in several nodes",
    "F34": "event streams for dashboards",
    "F56": "pausing a queue, changing a priority",
    "F60": "the dashboard",
}
