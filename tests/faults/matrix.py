"""The fault matrix: what may go wrong, what must come of it at most, and which tests do it.

`make faults` runs the tests at full length and prints the table. Targets are those of the design; a row says itself
what of it no test covers.
"""

from __future__ import annotations

from dataclasses import dataclass

CHUNKS, CAMERAS = "tests/faults/test_chunks.py::test_", "tests/faults/test_cameras.py::test_"
LIVE, BYTES = "tests/faults/test_live.py::test_", "tests/faults/test_malformed.py::test_"
NETWORK = "tests/faults/test_network.py::test_"
STOPS, LEADER = "tests/faults/test_stops.py::test_", "tests/faults/test_leader.py::test_"
DEATHS = "tests/graph/test_deaths.py::test_"
MODES, EXECUTOR = "tests/core/test_chunk_executor_modes.py::test_", "tests/core/test_chunk_executor.py::test_"
POSES = "tests/core/test_inverse_kinematics.py::test_"
WORKSPACE = "tests/core/test_workspace.py::test_"
LIMITER, LEAD = "tests/core/test_limiter.py::test_", "tests/core/test_lead.py::test_"
FUZZ, ADMISSION = "tests/bench/test_fuzz.py::test_", "tests/core/test_admission.py::test_"
READER, WRITER = "tests/core/test_bag_reader.py::test_", "tests/core/test_bag_writer.py::test_"
GRADING, CONVERT = "tests/core/test_grading.py::test_", "tests/test_convert.py::test_"
RECORDING, RECORDER = "tests/core/test_recording.py::test_", "tests/nodes/test_episode_recorder.py::test_"
CHECKPOINT, POLICY = "tests/e0_policy/test_checkpoint.py::test_", "tests/nodes/test_policy.py::test_"
REPLIES = "tests/e0_policy/test_policy_connection.py::test_"


@dataclass(frozen=True)
class Row:
    """A fault. `missing`: what no test covers, and why."""

    number: int
    fault: str
    target: str
    tests: tuple[str, ...] = ()
    missing: str = ""


MATRIX = (
    Row(
        1,
        "policy killed",
        "braking <= 20 ms after its plan or its word expires, 100 of 100",
        (
            CHUNKS + "a_policy_that_dies_at_any_moment_is_a_hold_within_20_ms_of_its_last_word",
            DEATHS + "on_the_arm_a_dead_policy_leaves_an_arm_that_holds",
        ),
    ),
    Row(
        2,
        "policy frozen 5 s, then goes on",
        "0 stale rows executed",
        (
            CHUNKS + "a_policy_that_was_frozen_moves_nothing_with_what_it_had_seen_before",
            LIVE + "a_policy_that_was_frozen_for_5_s_is_held_and_its_old_plans_are_not_followed",
        ),
    ),
    Row(
        3,
        "executor killed",
        "at rest by itself, no limit broken",
        (
            EXECUTOR + "a_dead_executor_leaves_an_arm_that_stops",
            DEATHS + "without_the_executor_the_controller_ends_at_rest_and_the_recorder_says_who_is_silent",
        ),
    ),
    Row(
        4,
        "executor frozen 50, 200, 1000 ms",
        "no burst of commands, no limit broken",
        (
            EXECUTOR + "a_frozen_executor_never_catches_up",
            LIVE + "a_frozen_executor_sends_no_burst",
        ),
    ),
    Row(
        5,
        "sync killed",
        "hold within 520 ms of its last word",
        (
            CHUNKS + "a_source_whose_plan_goes_on_is_a_hold_within_520_ms_of_its_last_word",
            DEATHS + "who_is_left_holds_the_arm_and_says_why",
        ),
    ),
    Row(
        6,
        "recorder killed",
        "motion goes on; <= 1 s of data lost; the bag recovers",
        (
            "tests/nodes/test_recorder_killed.py::test_at_most_a_second_of_the_take_is_lost",
            DEATHS + "without_the_recorder_the_arm_goes_on_and_what_was_recorded_is_readable",
        ),
    ),
    Row(
        7,
        "joint states lost",
        "braking <= 70 ms",
        (MODES + "lost_joint_states_stop_the_arm_within_70_ms",),
    ),
    Row(
        8,
        "camera frozen: stamp, or pixels under fresh stamps",
        "no inference; named <= 150 ms (stamp), <= 1 s (pixels)",
        (
            CAMERAS + "a_camera_that_repeats_its_stamp_gives_no_observation_and_is_named_in_150_ms",
            CAMERAS + "pixels_that_stand_still_under_fresh_stamps_are_found_within_a_second",
        ),
    ),
    Row(
        9,
        "camera late by 200 ms, jitter",
        "0 pairs over the tolerance",
        (CAMERAS + "no_pair_lies_further_apart_than_allowed_whatever_the_delays",),
    ),
    Row(
        10,
        "skew of 20, 100, 500 ms",
        "found within 10 s",
        (
            CAMERAS + "a_view_of_another_clock_is_told_with_its_offset",
            CAMERAS + "cameras_of_another_clock_than_the_joints_are_told_or_refused",
        ),
        "cameras that all are late by less than 140 ms against the joints look like slow ones",
    ),
    Row(
        11,
        "10, 50, 90 % of chunks lost",
        "0 breaches in 1e5 chunks",
        (
            CHUNKS + "lost_chunks_cost_motion_and_never_a_limit",
            CHUNKS + "short_plans_told_anew_faster_than_a_blend_are_caught_up_with_after_a_gap",
        ),
    ),
    Row(12, "chunks doubled", "the same bits", (CHUNKS + "doubled_chunks_change_no_bit",)),
    Row(13, "chunks out of order", "0 older followed", (CHUNKS + "a_chunk_that_was_overtaken_is_never_followed",)),
    Row(
        14,
        "chunks late by 0 to 3 s",
        "0 late rows executed",
        (
            CHUNKS + "rows_that_have_passed_on_the_way_are_skipped",
            CHUNKS + "with_delays_up_to_3_s_no_old_plan_is_followed",
            MODES + "word_that_was_long_on_its_way_keeps_no_plan",
        ),
    ),
    Row(
        15,
        "a policy server's reply after its timeout",
        "0 mismatched in 1e4",
        (
            REPLIES + "no_late_reply_is_taken_for_the_answer_to_another_request",
            REPLIES + "a_reply_that_nobody_asked_for_costs_the_connection",
            REPLIES + "a_numbered_reply_to_another_request_is_refused",
        ),
    ),
    Row(
        16,
        "NaN, Inf in any number, gripper too",
        "0 not finite out",
        (
            FUZZ + "no_hostile_chunk_makes_the_limiter_illegal",
            FUZZ + "no_hostile_message_makes_the_executor_illegal",
            FUZZ + "rows_that_are_no_numbers_stop_no_other_arm",
            EXECUTOR + "wrong_rows_are_refused",
        ),
        "a million chunks: make fuzz",
    ),
    Row(
        17,
        "1e308, denormals, overflow",
        "0 breaches in 1e6 chunks",
        (FUZZ + "no_hostile_chunk_makes_the_limiter_illegal", EXECUTOR + "whatever_comes_every_command_is_legal"),
        "a million chunks: make fuzz",
    ),
    Row(
        18,
        "wrong sizes, names, order, types",
        "all refused, with a reason",
        (
            EXECUTOR + "a_wrong_chunk_is_refused_counted_and_holds",
            EXECUTOR + "wrong_rows_are_refused",
            FUZZ + "no_hostile_message_makes_the_executor_illegal",
        ),
    ),
    Row(
        19,
        "jumps over 2 rad, sign flips every tick",
        "<= 10 rad/s2, <= 5000 rad/s3",
        (CHUNKS + "a_jump_is_refused_and_a_sign_that_flips_every_tick_is_limited",),
    ),
    Row(
        20,
        "pushes against the limits of joints 5 and 7, and out of the workspace",
        "0 overshoot; refused or held inside, with a reason",
        (
            WORKSPACE + "no_target_takes_the_arm_out_and_it_comes_to_rest_inside",
            WORKSPACE + "a_chunk_that_would_leave_is_refused_with_its_reason_and_holds",
            WORKSPACE + "rows_inside_between_which_the_arm_would_leave_are_held_with_a_reason",
            WORKSPACE + "stops_and_holds_near_a_wall_stay_inside",
            LIMITER + "the_envelope_of_the_fr3_is_kept_at_full_push",
            EXECUTOR + "targets_outside_the_position_limits_are_limited",
        ),
    ),
    Row(
        21,
        "quaternions, flips, unreachable poses",
        "refused or held",
        (
            POSES + "what_cannot_be_is_told",
            POSES + "poses_at_the_end_of_the_numbers_are_refused",
            POSES + "a_tool_turned_upside_down_and_too_many_rows_are_told",
            POSES + "an_arm_that_is_stretched_out_is_no_reason_to_jump",
            POSES + "a_wrong_chunk_of_poses_is_refused_and_holds",
            POSES + "whatever_the_poses_every_command_is_legal",
        ),
    ),
    Row(
        22,
        "degrees, another arm, deltas for positions",
        "all refused",
        (
            CHUNKS + "another_unit_frame_or_arm_is_refused_as_a_whole",
            POLICY + "a_policy_of_another_arm_is_refused",
        ),
    ),
    Row(
        23,
        "clock back and forward by 10 s, or still",
        "0 commands; watchdogs on the steady clock",
        (
            CHUNKS + "a_clock_that_jumps_disarms_and_nothing_more_is_sent",
            CHUNKS + "a_clock_that_stands_still_moves_nothing_on",
            STOPS + "a_heartbeat_that_ends_stops_the_arm_also_in_lockstep",
            "tests/nodes/test_bridge.py::test_lockstep_says_what_is_missing_and_ends_the_episode",
        ),
    ),
    Row(
        24,
        "wall clock stepped",
        "0 effect",
        (CHUNKS + "a_stepped_wall_clock_is_a_hold_or_worse_never_a_motion",),
        "it has: the arm holds or is disarmed, and a controller on the system clock skips what it stepped over",
    ),
    Row(
        25,
        "disk full",
        "bag whole; said <= 1 s; motion goes on",
        (
            RECORDER + "a_full_disk_is_a_fault_and_the_bag_is_whole_up_to_then",
            RECORDING + "too_little_space_while_it_runs_closes_the_bag_whole",
            DEATHS + "beside_a_full_disk_the_arm_goes_on_and_the_bag_is_whole_up_to_then",
        ),
    ),
    Row(
        26,
        "slow disk, slow reader",
        "memory < +200 MiB, losses counted to the message",
        (
            "tests/faults/test_slow_disk.py::test_a_slow_disk_bounds_memory_and_what_it_loses_is_counted",
            RECORDING + "what_does_not_fit_the_queue_is_dropped_and_said_so",
            RECORDER + "lost_messages_are_counted_from_the_publishers_numbers",
        ),
        "the slow disk is a slow file, no slowed block device",
    ),
    Row(27, "90 MB/s", "0 lost in 60 s", ("tests/bench/test_recorder.py::test_at_90_mb_per_s_nothing_is_lost",)),
    Row(
        28,
        "bags cut, bits flipped",
        "all found in 1000 cuts and 1000 flips; salvage up to the last whole chunk",
        (
            READER + "every_flipped_bit_is_detected_and_the_rest_salvaged",
            READER + "a_flipped_bit_of_the_index_is_found_by_whoever_opens_the_bag",
            READER + "a_flip_inside_a_chunk_costs_that_chunk_alone",
            READER + "a_truncated_bag_is_salvaged_up_to_its_last_whole_chunk",
            CONVERT + "a_damaged_bag_is_salvaged_up_to_its_first_gap",
        ),
    ),
    Row(
        29,
        "no metadata, stamps out of order or doubled, gaps",
        "every gap reported, 0 false",
        (
            READER + "a_folder_without_metadata_is_partial",
            GRADING + "a_hole_is_a_gap_of_that_stream_with_its_place_and_length",
            GRADING + "a_good_take_has_no_flag",
            GRADING + "stamps_that_go_back_are_a_clock_step",
            CONVERT + "a_gap_leaves_the_episode_out_or_is_held",
        ),
    ),
    Row(
        30,
        "hostile checkpoint",
        "no code run, refused before loading; the node ends <= 5 s",
        (
            CHECKPOINT + "damage_is_refused_before_anything_loads",
            CHECKPOINT + "pickles_and_half_checkpoints_are_refused",
            POLICY + "a_bad_start_ends_with_one_line_and_status_2",
        ),
    ),
    Row(
        31,
        "two policies",
        "0 interleaved; the other is refused and told why",
        (
            CHUNKS + "of_two_policies_one_drives_and_the_other_is_told_so",
            ADMISSION + "an_owner_keeps_the_arm_until_its_plan_ended_and_it_was_silent",
        ),
    ),
    Row(
        32,
        "human against policy, 1000 times",
        "within a tick, without a step",
        (
            CHUNKS + "the_human_takes_the_arm_within_a_tick_each_time_and_without_a_step",
            ADMISSION + "a_human_beats_a_policy_and_a_policy_beats_a_replay",
        ),
    ),
    Row(
        33,
        "leader arm lost, dropout, whole turns",
        "hold <= 100 ms",
        (
            LEADER + "a_leader_that_is_lost_at_any_moment_is_a_hold_within_100_ms",
            LEADER + "a_servo_that_jumps_at_any_moment_is_a_hold_within_100_ms_and_is_not_followed",
            LEADER + "a_servo_that_loses_count_of_its_turns_in_motion_changes_nothing",
            "tests/core/test_gello.py::test_a_jump_ends_the_leading_and_is_never_sent",
            "tests/core/test_gello.py::test_whole_turns_of_the_servos_change_nothing",
            "tests/graph/test_teleop_graph.py::test_a_leader_that_falls_silent_jumps_or_is_let_go_is_a_hold",
        ),
    ),
    Row(
        34,
        "emergency stop: service, key, heartbeat; node stalled",
        "braking <= 10 ms; at rest <= 264, 420, 528 ms; latched",
        (
            STOPS + "every_way_to_stop_brakes_within_10_ms_and_is_latched",
            STOPS + "stopping_times_are_within_the_physical_bound",
            STOPS + "stops_are_as_short_as_an_oracle_makes_them",
            STOPS + "a_heartbeat_that_ends_stops_the_arm_also_in_lockstep",
            STOPS + "after_a_stall_all_that_came_meanwhile_is_heard_before_the_next_tick",
            STOPS + "the_key_stops_a_running_executor_and_only_a_reset_releases_it",
            LIVE + "a_stop_that_came_while_the_executor_was_frozen_is_obeyed_before_any_motion",
            MODES + "stop_starts_at_once_and_is_latched",
        ),
    ),
    Row(
        35,
        "the robot stops by itself (reflex)",
        "0 commands until armed again",
        (
            "tests/core/test_pace.py::test_an_arm_that_stopped_by_itself_gets_no_command_until_it_is_armed_where_it_is",
            "tests/graph/test_arm_session.py::"
            "test_a_reflex_in_motion_ends_all_commands_and_one_call_brings_the_arm_back",
            CHUNKS + "an_arm_that_no_longer_follows_is_not_moved_until_it_is_armed_again",
        ),
        "franka_ros2 is played by the plant",
    ),
    Row(
        36,
        "inference raises, runs out of memory, never ends",
        "hold <= 520 ms; the node lives on",
        (
            POLICY + "an_exception_ends_in_none_with_the_cause_and_the_node_lives_on",
            CHUNKS + "a_source_whose_plan_goes_on_is_a_hold_within_520_ms_of_its_last_word",
            MODES + "a_source_that_falls_silent_loses_its_plan_and_the_arm_comes_to_rest",
            LIVE + "a_policy_that_was_frozen_for_5_s_is_held_and_its_old_plans_are_not_followed",
        ),
    ),
    Row(
        37,
        "network parted, lossy, slow",
        "as rows 1 and 11; joins again clean",
        (
            NETWORK + "a_cable_that_is_pulled_is_a_hold_and_the_policy_joins_again_clean",
            NETWORK + "loss_and_delay_cost_motion_and_never_a_limit",
            NETWORK + "a_policy_on_another_computer_is_found_by_its_address_and_drives",
            CHUNKS + "lost_chunks_cost_motion_and_never_a_limit",
            CHUNKS + "with_delays_up_to_3_s_no_old_plan_is_followed",
            LEAD + "commands_late_by_up_to_200_ms_are_legal",
        ),
    ),
    Row(
        38,
        "malformed messages, giant lengths",
        "0 crashes, memory < +256 MiB",
        (
            BYTES + "no_bytes_end_a_node_or_fill_its_memory",
            BYTES + "no_message_ends_an_executor_that_is_armed",
            BYTES + "no_bytes_end_who_works_with_an_arm_or_fill_their_memory",
        ),
    ),
    Row(
        39,
        "names that lead out of their folder",
        "0 writes outside",
        (
            "tests/core/test_episode.py::test_an_id_that_must_not_become_a_path_is_refused",
            WRITER + "a_name_that_must_not_become_a_path_is_refused",
            READER + "metadata_that_leads_out_of_the_folder_is_refused",
            CONVERT + "names_from_bags_stay_inside",
        ),
    ),
    Row(
        40,
        "processor starved",
        "misses told, hold; 0 breaches",
        (
            "tests/faults/test_starved.py::test_an_executor_that_is_starved_says_so_and_sends_nothing_illegal",
            LEAD + "a_machine_that_becomes_busier_and_busier_gives_no_illegal_command",
            LEAD + "messages_that_no_lead_covers_are_a_hold",
            EXECUTOR + "a_command_that_was_not_sent_in_time_never_was",
            EXECUTOR + "a_command_branches_off_when_it_says_however_far_ahead_its_plan_is_followed",
            "tests/faults/test_starved.py::test_a_command_that_became_too_late_is_not_sent_however_far_ahead_its_plan_is",
        ),
    ),
    Row(
        41,
        "start and end: old chunks, Ctrl-C in motion",
        "0 moves on old data; at rest",
        (
            EXECUTOR + "a_chunk_that_is_only_old_late_or_known_is_dropped_without_a_hold",
            LIVE + "an_interrupt_in_motion_ends_at_rest",
        ),
    ),
)
