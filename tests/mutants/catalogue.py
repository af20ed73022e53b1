"""What is broken on purpose: one rule a mutant, as a change of text that must apply, and the tests that must notice."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["MUTANTS", "SCRIPTS", "Mutant"]

SCRIPTS = "tests/integration/store/test_scripts.py"
MACHINE = "tests/integration/store/test_lifecycle_machine.py"
#: Quick tests first: the run ends at the first failure.
STORE = (SCRIPTS, MACHINE, "-k", "valkey")
FLOW = (
    *(f"tests/integration/store/test_flow{part}.py" for part in ("_orders", "", "_machine")),
    "-k",
    "valkey and not (many_keys or flood or weights or every_window or bucket)",  # what takes long and no mutant needs
)
BROKER = "tests/integration/broker"


class Mutant(NamedTuple):
    """One broken rule.

    Attributes:
        name: what is wrong with it.
        file: below `services/taskmaster`.
        old: a text that is there once.
        new: what stands in its place.
        tests: arguments for pytest; at least one of these tests must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def lua(name: str, file: str, old: str, new: str) -> Mutant:
    """A broken script."""
    return Mutant(name, f"store/lua/{file}.lua", old, new, STORE)


def effects(name: str, file: str, old: str, new: str) -> Mutant:
    """A broken script of the effect ledger."""
    return Mutant(name, f"store/lua/{file}.lua", old, new, ("tests/integration/store/test_effects.py", *STORE))


def letters(name: str, file: str, old: str, new: str) -> Mutant:
    """A broken script of dead letters, operations or retention."""
    tests = tuple(f"tests/integration/store/test_{name}.py" for name in ("operations", "letters", "retention"))
    return Mutant(name, f"store/lua/{file}.lua", old, new, (*tests, "-k", "valkey"))


def history(name: str, file: str, old: str, new: str) -> Mutant:
    """A broken script of the audit or of what is told of events."""
    tests = (
        "tests/integration/store/test_audit.py",
        "tests/integration/store/test_events.py",
        "tests/integration/api/test_feed.py",
        "-k",
        "valkey",
    )
    return Mutant(name, f"store/lua/{file}.lua", old, new, tests)


def flow(name: str, file: str, old: str, new: str) -> Mutant:
    """Broken flow control."""
    return Mutant(name, f"store/lua/{file}.lua", old, new, FLOW)


def schedules(name: str, file: str, old: str, new: str) -> Mutant:
    """A broken script of schedules."""
    tests = ("tests/integration/scheduler", SCRIPTS, "-k", "valkey and (schedul or report)")
    return Mutant(name, f"store/lua/{file}.lua", old, new, tests)


def webhooks(name: str, file: str, old: str, new: str) -> Mutant:
    """A broken outbox."""
    return Mutant(name, f"store/lua/{file}.lua", old, new, ("tests/integration/store/test_outbox.py", "-k", "valkey"))


def python(name: str, file: str, old: str, new: str, *tests: str) -> Mutant:
    """A broken worker."""
    return Mutant(name, f"{file}.py", old, new, tests)


_LUA = [
    lua("finish_without_token", "cycle", "if f[1] ~= 'a' or f[5] ~= its_token then", "if f[1] ~= 'a' then"),
    lua("finish_without_state", "cycle", "if f[1] ~= 'a' or f[5] ~= its_token then", "if f[5] ~= its_token then"),
    lua("op_id_not_stored", "cycle", "if this_seq == heard then", "if false then"),
    lua("late_call_runs", "cycle", "if this_seq < heard then return { STATUS.STALE_OP } end", ""),
    lua("claims_not_remembered", "cycle", "'claims', table.concat(ids))", "'claims', '')"),
    lua("claim_pops_before_lease", "lib/fetch", "  add(P .. 'active', claimer.expiry, id)\n", ""),
    lua("gone_may_claim", "cycle", "if not me[1] or me[3] then", "if not me[1] then"),
    lua(
        "epoch_without_token",
        "lib/fetch",
        "epoch_text, 'tk', claimer.token, 'sa', NOW)",
        "epoch_text, 'tk', string.gsub(claimer.token, '%d+$', '1'), 'sa', NOW)",
    ),
    lua("retry_forgets_cancel", "cycle", "if job[8] or outcome == 'x' then", "if outcome == 'x' then"),
    lua("cancel_beats_finish", "cycle", "if outcome == 'c' then", "if outcome == 'c' and not call('HGET', key, 'cr') then"),
    lua("retries_unbounded", "cycle", "failures < (tonumber(job[2]) or ATTEMPTS)", "failures < 99"),
    lua("hand_back_not_counted", "cycle", "'en', its_token, 'tk', '', 'hb', (tonumber(job[4]) or 0) + 1)", "'en', its_token, 'tk', '')"),
    lua("promotion_forgotten_in_the_round", "cycle", "promote(PROMOTED_A_CALL) == 1", "false"),
    lua("idle_told_later", "cycle", "call('ZADD', idle, this_seq, wid)", "local _ = idle"),
    lua("no_pass_on", "cycle", "passed_on[#passed_on + 1] = group[i]", "local _ = group"),
    lua("no_chain", "cycle", "for _, left in ipairs(leftovers) do wake(left[1], left[2], 1) end", ""),
    lua("credit_for_idling", "lib/turns", "local its = math.max(tags[p], tags.V)", "local its = tags[p]"),
    lua("reap_without_grace", "reap", "'-inf', now - grace, 'LIMIT'", "'-inf', now, 'LIMIT'"),
    lua("reap_of_the_living", "reap", "'-inf', now - grace, 'LIMIT'", "'-inf', '+inf', 'LIMIT'"),
    lua("losses_not_counted", "reap", "(tonumber(f[5]) or 0) + 1", "(tonumber(f[5]) or 0)"),
    lua("reap_forgets_cancel", "reap", "if f[8] then", "if false then"),
    lua("reap_keeps_token", "reap", "'ls', losses, 'tk', '')", "'ls', losses)"),
    lua("submit_without_memory", "lib/admit", "if state then return { STATUS.ALREADY, state, id } end", ""),
    lua("late_submission_is_taken", "lib/admit", "if not is_timely then", "if false then"),
    lua("one_key_two_jobs", "lib/admit", "if not is_new then answer = by_key(call('GET', P .. 'k:' .. key), request) end", ""),
    lua("atomic_stores_the_rest", "submit", "if is_refused then return out end", ""),
    lua("cancel_without_cas", "cancel", "if state == 'c' or state == 'f' then return { STATUS.CONFLICT, state } end", ""),
    lua(
        "cancel_keeps_index",
        "lib/cancel",
        "out_of_rest(id, state, f[2], f[4], band_type(f[3], f[5]), f[11])",
        "count(f[2] .. '/' .. state, -1)",
    ),
    lua("extend_without_token", "extend", "if f[1] == 'a' and f[2] == attempt[2] then", "if f[1] == 'a' then"),
    lua("progress_without_token", "progress", "if f[1] == 'a' and f[2] == word[2] then", "if f[1] == 'a' then"),
    lua("line_kept_twice", "progress", "if fresh <= 0 then return false end", "fresh = given"),
    lua("lines_unbounded", "progress", "while held > LINES_KEPT or", "while false or"),
    lua("purge_keeps_lines", "lib/purge", "  if said then purged_keys[n + 5] = P .. 'g:' .. id end\n", ""),
    lua("purge_without_tombstone", "lib/purge", "if not keyed and id_ms(id) >= now - RESEND_MS then", "if false then"),
    lua("purge_keeps_the_types_index", "lib/purge", "  rem(P .. 'it:' .. ty, id)\n", ""),
    lua("purge_frees_key", "lib/purge", "  tell('g', id)\n", "  tell('g', id)\n  if keyed then call('DEL', P .. 'k:' .. keyed) end\n"),
    lua("purge_counts_twice", "purge", "if not f[1] or seen[id] then", "if not f[1] then"),
    lua("purge_of_the_living", "purge", "elseif f[1] == 'c' or f[1] == 'f'", "elseif f[1] == 'w' or f[1] == 'c' or f[1] == 'f'"),
    lua("prune_takes_one_more", "lib/purge", "call('ZCARD', key) - keep, limit)", "call('ZCARD', key) - keep + 1, limit)"),
    lua("dead_letter_without_group", "lib/bury", "  add(P .. 'fp:' .. fingerprint, NOW, id)\n", ""),
    lua("dead_letter_not_listed", "lib/bury", "  add(P .. 'dlq:' .. job.q, NOW, id)\n", ""),
    lua("dead_letter_before_state", "lib/bury", "'st', 'f', 'fa', NOW, 'rs', reason", "'fa', NOW, 'rs', reason"),
    lua("band_not_opened", "lib/state", "call('SADD', P .. 'bands:' .. lane.queue, lane.band)", "local _ = lane"),
    lua("earlier_due_unsaid", "lib/state", "if waits_due then tell_keeper(waits_due) end", ""),
    lua("promotion_keeps_the_delayed_row", "lib/promote", "    rem(P .. 'delayed', id)\n", ""),
    lua("wake_any", "lib/wake", "P .. 'tc:' .. band_type, now, '+inf'", "P .. 'ws', now, '+inf'"),
    lua("wakes_the_dead", "lib/wake", "if is_alive(sleeper) then", "if true then"),
    lua("no_handover", "lib/wake", "if call('HGET', P .. 'keeper', 'wid') == wid then find_keeper() end", ""),
    lua("no_tick", "tick", "for _, queue in ipairs(queues) do wake_all_bands(queue) end", ""),
    lua("unlisted_ttl", "register", "call('PEXPIRE', P .. 'w:' .. wid, KEPT_MS)", ""),
    webhooks("end_not_in_the_outbox", "lib/state", "if is_heard then note_end(id, queue, state) end", ""),
    webhooks("deliveries_are_told_of", "lib/state", "if f[1] == DELIVERY then return end", ""),
    webhooks("callback_stays_after_the_end", "lib/state", "if url then call('HDEL', P .. 'cb', id) end", ""),
    webhooks("callback_of_this_very_call_unheard", "lib/admit", "        is_heard = true\n", ""),
    webhooks("told_of_before_it_is_so", "lib/cancel", "'rs', 'cancelled', 'cr',", "'cr',"),
    webhooks("disabled_endpoint_listens", "webhook_put", "return url and off == '' and events", "return url and events"),
    webhooks(
        "outbox_without_a_bound", "lib/state", "local dropped = call('XTRIM', P .. 'ob', 'MAXLEN', '~', OUTBOX_KEPT)", "local dropped = 0"
    ),
    webhooks("dropped_without_a_word", "lib/state", "call('HINCRBY', P .. 'obd', 'n', dropped)", ""),
    effects("reserve_without_token", "guard_reserve", "if f[1] ~= 'a' or f[2] ~= token then", "if f[1] ~= 'a' then"),
    effects("reserved_is_free", "guard_reserve", "if is_reserved and again ~= '1' then", "if false then"),
    effects("reserved_is_done", "guard_reserve", "row and row[STATE] == 'd' then", "row and row[STATE] ~= 'f' and not is_mine then"),
    effects("guard_owned_by_attempt", "guard_reserve", "row[TOKEN] == token and row[CALL] == its_call", "row[TOKEN] == token"),
    effects("guard_per_job", "guard_reserve", "local root = f[3] or id", "local root = id"),
    effects("late_copy_reserves", "guard_reserve", "if row and row[TOKEN] == token and row[CALL] >= its_call then", "if false then"),
    effects("anybody_says_done", "guard_done", "if row[TOKEN] ~= token or row[CALL] ~= its_call then return STATUS.STALE end", ""),
    effects("settled_while_it_runs", "guard_settle", "if is_owner_current(row) then return { STATUS.CONFLICT, 'running' } end", ""),
    effects("settled_too_early", "guard_settle", "if not happened and now < row[RESERVED] + at_it_ms then", "if false then"),
    effects("settled_without_audit", "guard_settle", "record_audit(who, 'effect.settled'", "local _ = (who or 'effect.settled'"),
    effects(
        "guard_dies_with_job",
        "lib/purge",
        "if root then job_leaves_lineage(root, id) end",
        "if root then call('UNLINK', P .. 'e:' .. root) end",
    ),
    effects("letter_does_not_hold", "lib/lineage", "if call('EXISTS', P .. 'd:' .. id) == 1 then", "if false then"),
    effects("replay_of_the_unknown", "lib/admit", "if kind.open ~= 1 and", "if false and"),
    letters("operation_step_without_cas", "lib/operation", "return f[2] == cursor and f[1]", "return f[1]"),
    letters("operation_replays_later_failures", "operation_page", "latest_meant(filter, made)", "math.huge"),
    letters("operation_knows_no_stop", "operation_look", "limit and failed >= limit", "false"),
    letters("operation_saves_up_for_a_day", "lib/operation", "OP_BURST * rate", "86400 * rate"),
    letters("operation_forgets_its_jobs", "operation_note", "call('ZADD', P .. 'opj:' .. id, unpack(rows))", "local _ = rows"),
    letters("discard_without_audit", "lib/discard", "record_audit(who, 'dead_letter.discarded'", "tostring(who, 'dead_letter.discarded'"),
    letters("discard_keeps_the_job", "lib/discard", "if job[1] == 'f' then", "if false then"),
    letters("discard_takes_the_living", "lib/discard", "if job[1] == 'f' then", "if job[1] then"),
    letters("discard_holds_its_lineage", "lib/discard", "  leave_lineage(f[5] or id, 'd/' .. id)\n", ""),
    letters("group_outlives_its_records", "lib/discard", "  robbed[print] = true\n", ""),
    letters("bytes_not_released", "lib/purge", "  if bytes > 0 then count(queue .. '/' .. state .. '/bytes', -bytes) end\n", ""),
    letters("bytes_without_the_old_error", "lib/state", "failures and call('STRLEN', P .. 'r:' .. id) or 0", "0"),
    history("chain_without_the_row_before", "lib/audit", "local row = { before }", "local row = { '' }"),
    history("chain_without_the_head", "lib/audit", "call('HSET', P .. 'chain', 'n', n, 'h'", "call('HSET', P .. 'chain', 'n', n, 'x'"),
    history("chain_without_lengths", "lib/audit", "#text .. ':' .. text", "text"),
    history("removal_taken_for_trimming", "audit", "first_number > 1 and", "false and"),
    history("gap_unsaid", "events", "is_lost, told = 1, ''", "told = ''"),
    history("gap_before_all_unsaid", "events", "if facts['entries-added'] > facts.length then is_lost = 1 end", ""),
    history("entry_told_again", "events", "told == '' and records + 1 or tonumber(told) + 1", "1"),
    lua(
        "registration_overrules_the_operator",
        "register",
        "if call('HEXISTS', P .. 'orders', 'l/' .. ty .. '/names') == 0 then",
        "if true then",
    ),
    lua(
        "type_is_held_by_what_it_had",
        "lib/types",
        "for name in string.gmatch(before, '[^,]+') do kick_at(string.match(name, '^[^?]+'), now) end",
        "",
    ),
    lua("begun_too_late", "lib/admit", "return kind.ex and kind.ex <= math.max(now, due_of(kind))", "return kind.ex and kind.ex <= now"),
    lua("plugin_resume_ends_other_pauses", "plugin_pause", "if cjson.decode(pauses[i + 1]).plugin == plugin then", "if true then"),
    schedules("fire_of_an_old_definition", "schedule_fire", "if f[1] ~= definition or f[5] or", "if f[5] or"),
    schedules("fire_while_paused", "schedule_fire", "if f[1] ~= definition or f[5] or", "if f[1] ~= definition or"),
    schedules("fire_again", "schedule_fire", " or f[slot == 'next' and 2 or 3] ~= step.from then", " then"),
    schedules("fire_before_it_is_due", "schedule_fire", "or math.huge) > now then", "or math.huge) == 0 then"),
    schedules("fire_without_advance", "schedule_fire", "  call('HSET', key, 'next', step.next)\n", ""),
    schedules("step_without_memory", "schedule_fire", "if f[4] == mark_of_step then", "if false then"),
    schedules("missed_in_silence", "schedule_fire", "  call('HINCRBY', key, 'missed', step.missed[1])\n", ""),
    schedules("missed_without_alarm", "schedule_fire", "  call('ZADD', P .. 'scmissed', NOW, id)\n", ""),
    schedules("queued_and_run", "schedule_fire", "outcome = f[3] and 'skipped' or 'queued'", "outcome = 'queued'"),
    schedules(
        "held_beside_the_running", "schedule_round", "if slot == 'held' and f[5] and LIVE", "if slot == 'held' and not f[5] and LIVE"
    ),
    schedules("everybody_leads", "schedule_round", "if not mine then return", "if false then return"),
    schedules("lease_for_ever", "schedule_round", "or till <= now or", "or"),
    schedules("put_over_a_fire", "schedule_put", " or (f[3] or '') ~= known_last then", " then"),
    schedules("declaration_wins", "schedule_put", "if f[5] then", "if false then"),
    schedules("older_declaration_wins", "schedule_put", "if had.version >= has.version then", "if had.version == has.version then"),
    lua("key_dies_with_its_window", "lib/state", "math.max(window, KEY_KEPT_MS)", "window"),
    flow(
        "kick_once", "lib/park", "local from = (not l or l.room > 0) and now + AGAIN_MS or room_from(l)", "local from = l and room_from(l)"
    ),
    flow(
        "release_without_kick", "lib/release", "if call('EXISTS', P .. 'L:' .. instance .. ':w') == 1 then kick_at(instance, now) end", ""
    ),
    flow("refused_without_kick", "lib/park", "if from then kick_at(l.instance, from) end", ""),
    flow("used_up_room_is_not_waited_for", "lib/park", "if open.limiter and open.limiter.room <= 0 then", "if false then"),
    flow("parked_lane_never_let_go", "lib/park", "call('ZADD', lane.ring, 'XX', start_tag(lane), name)", "local _ = lane"),
    flow("instances_not_looked_at", "lib/park", "if name == instance then kick_instances(name) end", ""),
    flow("waits_for_what_it_does_not_need", "lib/park", "if not is_attached(name, unit) then", "if false then"),
    flow("slot_kept_at_retry", "cycle", "out_of_active(id, queue, f[7])", "out_of_active(id, queue, outcome ~= 'r' and f[7])"),
    flow("slot_kept_at_reap", "reap", "out_of_active(id, queue, f[15])", "out_of_active(id, queue)"),
    flow("room_seen_once", "lib/limits", "l.room, l.took = l.room - 1, l.took + 1", "l.took = l.took + 1"),
    flow("rate_window_off_by_one", "lib/limits", "'(' .. (now - l.per)", "'(' .. (now - l.per + 1)"),
    flow("pause_of_a_queue_ignored", "lib/fetch", "call('HEXISTS', P .. 'pause', 'q/' .. queue) == 1", "false"),
    flow("pause_of_a_type_ignored", "lib/fetch", "if loaded[i] == 0 or paused[i] then", "if loaded[i] == 0 then"),
    flow("pause_of_a_tenant_ignored", "lib/limits", "call('HEXISTS', P .. 'pause', 'k/' .. key) == 0", "true"),
    flow("tenant_resumed_without_kick", "pause", "kick_at(TENANTS .. '@' .. tenant, now)", "local _ = tenant"),
    flow("weight_of_a_queue_ignored", "lib/share", "tonumber(call('HGET', P .. 'q:' .. queue, 'share') or 1)", "1"),
    flow("credit_for_idling_queues", "lib/share", "at[queue] = math.max(tags[queue], v)", "at[queue] = tags[queue]"),
    flow("woken_for_what_is_paused", "lib/wake", "waits[i + 1] == 0 and not paused[i + 1] and", "waits[i + 1] == 0 and"),
    flow("turn_of_the_lane", "lib/fair", "if tag <= row[LANE_TAG] then return row end", "if true then return row end"),
    flow("credit_for_idling_keys", "lib/fair", "if its_tag < turn.v then its_tag = turn.v end", ""),
    flow("only_level_owes_nothing", "lib/fetch", "if alone and taken > 0 then had_turns(tags, alone, taken) end", ""),
    flow("empty_lane_stays_in_its_ring", "lib/fair", "pull_first(band)[IS_GONE] = true", "pull_first(band)"),
    flow("emptied_lane_waits_for_room", "lib/fair", "elseif is_emptied(row) then", "elseif false then"),
    flow("emptied_lane_stays_in_its_ring", "lib/fair", "row[IS_GONE] = row[IS_GONE] or is_emptied(row)", ""),
    flow("refused_lane_keeps_its_turn", "lib/fair", "pull_first(band)[LANE_TAG] = '+inf'", "pull_first(band)"),
    flow("room_of_some_is_room_of_all", "lib/fair", "has_room = has_room and all[i].room > 0", "has_room = all[i].room > 0"),
    flow("expiry_ignored_at_the_claim", "lib/fetch", "if tonumber(f[3]) <= now then", "if false then"),
    flow("expired_on_the_way", "cycle", "write_indexes()\nkick_freed()\n", "kick_freed()\n"),
    flow(
        "unique_ignored",
        "lib/unique",
        "if not id or (ux[4] == 'replace' and is_waiting) then return nil end",
        "if true then return nil end",
    ),
]

_SEND_OTHER = (
    "        time.sleep(wait_s)\n        attempt += 1\n",
    """        time.sleep(wait_s)
        attempt += 1
        if call.script.name == "cycle":
            from dataclasses import replace

            call = replace(call, args=({}))
""",
)

_PYTHON = [
    python(
        "out_of_the_outbox_before_the_delivery",
        "maintenance/webhooks",
        '            failpoints.hit("webhook.before_submit")\n',
        "            self.store.run(webhooks.outbox_done(self.partition, [end.entry for end in ends]))\n"
        '            failpoints.hit("webhook.before_submit")\n',
        "tests/faults/test_webhooks.py",
    ),
    python(
        "delivery_without_key",
        "engine/deliveries",
        "        key=kx,\n",
        '        key="",\n',
        "tests/faults/test_webhooks.py",
    ),
    python(
        "ack_before_the_handler",
        "broker/pools",
        "        try:\n            try:\n                message.thread_id",
        "        from taskmaster.store.calls import Finish\n\n"
        '        message.finish = Finish(message.claim.id, message.token, "c")\n        message.consumer.ack(message)\n'
        "        try:\n            try:\n                message.thread_id",
        f"{BROKER}/test_attempts.py",
    ),
    python(
        "unjudged_end_is_acknowledged",
        "broker/threads",
        "            message.finish = None\n            log.error(events.JOB_OUTCOME_REFUSED",
        '            message.finish = Finish(message.claim.id, message.token, "c")\n            log.error(events.JOB_OUTCOME_REFUSED',
        f"{BROKER}/test_guards.py",
    ),
    python(
        "guard_trusts_any_lease",
        "broker/middleware/idempotency",
        "if time.monotonic() - message.confirmed_at > self._trusted_s:",
        "if False:",
        f"{BROKER}/test_store_faults.py",
        "-k",
        "too_late",
    ),
    python(
        "lease_counted_from_the_answer",
        "broker/consumer",
        "            message.confirmed_at = sent_at",
        "            message.confirmed_at = now",
        f"{BROKER}/test_store_faults.py",
        "-k",
        "too_late",
    ),
    python(
        "hook_that_raises_is_passed_over",
        "broker/broker",
        'self._overridden(f"before_{signal}"):\n            hook(self, *args, **kwargs)',
        'self._overridden(f"before_{signal}"):\n'
        "            try:\n                hook(self, *args, **kwargs)\n            except BaseException:\n                continue",
        f"{BROKER}/test_guards.py",
    ),
    python(
        "stale_is_ignored",
        "broker/consumer",
        "            if code is Status.STALE:",
        "            if False:",
        "tests/faults/test_races.py",
        "-k",
        "lease_was_lost",
    ),
    python(
        "resend_with_a_new_number",
        "store/channel",
        _SEND_OTHER[0],
        _SEND_OTHER[1].format("*call.args[:2], int(call.args[2]) + 1, *call.args[3:]"),
        f"{BROKER}/test_store_faults.py",
        "-k",
        "lost_answer or every_other",
    ),
    python(
        "resend_without_what_ended",
        "store/channel",
        _SEND_OTHER[0],
        _SEND_OTHER[1].format('*call.args[:4], b"\\x90", *call.args[5:]'),
        f"{BROKER}/test_store_faults.py",
        "-k",
        "halve or restarted or held",
    ),
    python(
        "no_heartbeat",
        "worker/process",
        'Duty("beat", self.settings.lease_ms / 3_000, worker.beat),',
        "",
        f"{BROKER}/test_times.py",
    ),
    python(
        "nothing_is_handed_back",
        "broker/pools",
        "                taken.append(self._waiting.popleft())",
        "                return taken",
        f"{BROKER}/test_flow.py",
        "-k",
        "drain",
    ),
    python(
        "claims_while_draining",
        "broker/consumer",
        "        if not self.draining.is_set():\n            return self.slots.free()",
        "        if True:\n            return self.slots.free()",
        f"{BROKER}/test_flow.py",
        "tests/e2e/test_worker.py",
        "-k",
        "drain or sigterm_lets",
    ),
    python(
        "stop_strands_what_runs",
        "broker/threads",
        "                    self.left.append(left)\n",
        "                    pass\n",
        "tests/e2e/test_limits.py",
        "-k",
        "second_signal",
    ),
    python(
        "suspects_run_beside_others",
        "worker/identity",
        'types = tuple(f"{name}{LOST_BAND}" for name in registry.types) if suspects else registry.types',
        'types = (*registry.types, *(f"{name}{LOST_BAND}" for name in registry.types))',
        "tests/e2e/test_worker.py",
        "-k",
        "poison",
    ),
    python(
        "deaf_handler_is_never_given_up",
        "broker/deadlines",
        "elif now > message.struck_at + self.grace_s:",
        "elif False:",
        f"{BROKER}/test_limits.py",
    ),
    python(
        "gives_up_without_retiring",
        "broker/deadlines",
        '        worker.retire("a handler did not stop")\n',
        "",
        f"{BROKER}/test_limits.py",
    ),
    python(
        "done_before_the_effect",
        "../taskmaster_sdk/effects",
        "        if self.is_new and (error is None or isinstance(error, self._unless)):",
        "        if self.is_new:",
        "tests/unit/test_sdk_effects.py",
    ),
    python(
        "replay_step_without_a_key",
        "engine/operations",
        "dlq.Request(row.id, by,",
        'dlq.Request("", by,',
        "tests/integration/store/test_operations.py",
        "-k",
        "valkey",
    ),
    python(
        "scope_not_required",
        "api/service",
        "if not self.may(scope):",
        "if False:",
        "tests/integration/api/test_operations.py",
        "-k",
        "valkey and scope",
    ),
    python(
        "result_rejected_is_retried",
        "model/outcome",
        "isinstance(error, Rejected)",
        "isinstance(error, KeyboardInterrupt)",
        f"{BROKER}/test_attempts.py",
        "tests/unit/model/test_outcome.py",
    ),
]


def breaking(name: str, file: str, old: str, new: str, tests: str = "test_breakers.py") -> Mutant:
    """A broken script of breakers or of what explains."""
    return Mutant(name, f"store/lua/{file}.lua", old, new, (f"tests/integration/store/{tests}", "-k", "valkey"))


_DEPENDENCIES = [
    breaking("breaker_never_opens", "lib/breaker", "b.downs >= b.ratio * b.calls then trip(b)", "false then trip(b)"),
    breaking("breaker_forgets_its_minimum", "lib/breaker", "b.calls >= b.least and", ""),
    breaking("probes_unbounded", "lib/limits", "rule.probes - call('ZCARD', l.slots)", "math.huge"),
    breaking("calls_from_before_close_it", "lib/breaker", " and began >= b.till then", " then"),
    breaking("a_bad_probe_goes_on", "lib/breaker", "if b.bad >= b.ratio * b.probes and b.bad > 0 then", "if false then"),
    breaking("dependency_down_burns_an_attempt", "cycle", "if outcome == 'd' and not may_wait(key, f[7]) then", "if outcome == 'd' then"),
    breaking("poison_is_spared_for_ever", "lib/breaker", "return call('HINCRBY', key, 'dd', 1) <= DOWNS_FREE", "return true"),
    breaking("rate_limit_is_not_shared", "lib/breaker", "if b.state == 'closed' or b.till then open_until", "if false then open_until"),
    breaking("retries_have_no_budget", "lib/breaker", "at = math.max(at, math.ceil(b.even))", "at = due"),
    breaking("registration_resets_a_breaker", "register", "call('HSETNX', P .. 'L:' .. name, 'kind', 'breaker') == 1", "true"),
    breaking("a_fallback_waits", "lib/fair", "if l.room <= 0 and its.fallback then", "if false then"),
    breaking("why_ignores_the_pause", "lib/hold", "call('HGET', P .. 'pause', 'q/' .. job.q)", "false", "test_why.py"),
    breaking(
        "why_tells_the_first_limit_only",
        "lib/fair",
        "if not refusals then return nil, l, its.unit end",
        "return nil, l, its.unit",
        "test_why.py",
    ),
    python("low_is_shed_last", "engine/admission", "limit << (LOW - rank)", "limit << rank", "tests/unit/engine/test_admission.py"),
    python(
        "unsaid_errors_are_nobodys",
        "model/outcome",
        'return Decision("r", after_ms, "dependency_down" if is_of_dependency else "")',
        'return Decision("r", after_ms)',
        "tests/unit/model/test_meaning.py",
    ),
]

MUTANTS = {mutant.name: mutant for mutant in (*_LUA, *_PYTHON, *_DEPENDENCIES)}
