"""Rules about what plugins declare: retries, time-outs, limits of outside calls, keys, marks, owners."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from taskmaster.engine.checklist.facts import Facts
from taskmaster.engine.checklist.findings import Finding, Rule, named
from taskmaster.engine.queue_rules import queue_rules, type_rules
from taskmaster.model.retry import schedule_ms
from taskmaster.plugins.catalogue import CatalogueEntry
from taskmaster.plugins.marks import unmarked
from taskmaster_sdk.jobs import TIMEOUT_S

__all__ = ["RULES"]

#: What `@job` allows; a catalogue that others wrote may say more.
ATTEMPTS_MAX = 100
#: Retries that go on for longer than a week end long after anybody waits for them.
RETRIES_LONG_MS = 7 * 86_400_000
#: A handler that hangs keeps its slot for so long.
TIMEOUT_LONG_MS = 3_600_000

_RETRIES = Rule(
    "retries",
    "a call to the outside that fails once mostly succeeds later, if there is another attempt and it does not come at once; and attempts "
    "must come to an end",
    "@job(attempts=5, backoff=Backoff(kind='exponential', delay_ms=1000, jitter=0.2))",
)
_TIMEOUTS = Rule(
    "timeouts",
    "a handler that hangs keeps its slot until its time-out; how long a job may take is known to its author alone",
    "@job(timeout_s=…): a little more than the slowest attempt that is still well",
)
_LIMITS = Rule(
    "dependency-limits",
    "without a limiter all workers together may call as fast as they can, and a third party answers that with 429 or a ban; its breaker "
    "steps in only after calls have failed",
    "@job(limits=['NAME']) or PATCH /job-types/{type}, and a rule for it: taskmaster limits put NAME --rate 100 --per-ms 1000",
)
_IDEMPOTENCY = Rule(
    "idempotency",
    "a submission without a key that is repeated after a lost answer is a second job. Whether a handler guards its effects (ctx.effect) "
    "is not in the catalogue, so it cannot be judged here",
    "TASKMASTER_IDEMPOTENCY=required, or @job(key_required=True) for types whose work must not be done twice",
)
_MARKS = Rule(
    "pii-marks",
    "what is not marked is shown in full by API and command line, and may stand in the texts of errors",
    "Annotated[str, Secret] or Annotated[str, Pii] of taskmaster_sdk for these fields of the payload",
)
_OWNERS = Rule("owners", "whoever is called at night must know whose job type it is", "")


def retries(facts: Facts) -> list[Finding]:
    """Attempts are bounded; types with a dependency have more than one, not at once."""
    unbounded, once, at_once, long = [], [], [], []
    for entry in facts.store.types:
        if not 1 <= entry.attempts <= ATTEMPTS_MAX:
            unbounded.append(entry.type)
            continue
        waits = schedule_ms(entry.backoff, entry.attempts)
        if entry.dependency and entry.attempts == 1:
            once.append(entry.type)
        elif entry.dependency and 0 in waits:
            at_once.append(entry.type)
        if sum(waits) > RETRIES_LONG_MS:
            long.append(entry.type)
    told = {"unbounded": unbounded, "once": once, "atOnce": at_once, "longerThanAWeek": long}
    words = {
        "unbounded": f"attempts not within 1 to {ATTEMPTS_MAX}",
        "once": "depends on something outside and has one attempt",
        "atOnce": "depends on something outside and is repeated at once",
        "longerThanAWeek": "is repeated for more than a week",
    }
    return [_judged(_RETRIES, told, words, f"{len(facts.store.types)} types, all bounded")]


def timeouts(facts: Facts) -> list[Finding]:
    """Every type says how long it may take, and that is no longer than an hour."""
    usual = [entry.type for entry in facts.store.types if not _is_timed(entry)]
    long = [entry.type for entry in facts.store.types if entry.timeout_ms > TIMEOUT_LONG_MS]
    words = {"onTheDefault": f"at the default of {TIMEOUT_S:g} s", "longerThanAnHour": "may take more than an hour"}
    return [_judged(_TIMEOUTS, {"onTheDefault": usual, "longerThanAnHour": long}, words, f"{len(facts.store.types)} types have their own")]


def _is_timed(entry: CatalogueEntry) -> bool:
    """Whether its author has said a time-out; of a version that does not tell: whether it is another than the usual."""
    return entry.timeout_ms != TIMEOUT_S * 1_000 if entry.is_timed is None else entry.is_timed


def dependency_limits(facts: Facts) -> list[Finding]:
    """A type that calls something outside has a limiter with a rule, by itself or by its queue."""
    orders = facts.store.orders
    depending = [entry for entry in facts.store.types if entry.dependency]
    if not depending:
        return [_LIMITS.ok("no type declares a dependency")]
    bare = {
        entry.type: entry.dependency
        for entry in depending
        if not orders[0].limiters.intersection(type_rules(orders, entry.type).limits + queue_rules(orders, entry.queue).limits)
    }
    if bare:
        return [_LIMITS.warning(f"without a limiter: {named(f'{one} ({what})' for one, what in bare.items())}", {"types": bare})]
    return [_LIMITS.ok(f"{len(depending)} types with a dependency, all limited")]


def idempotency(facts: Facts) -> list[Finding]:
    """A submission needs a key."""
    open_ = [one.type for one in facts.store.types if not (facts.own.is_key_required if one.key_required is None else one.key_required)]
    setting = "required" if facts.own.is_key_required else "optional"
    told = {"setting": setting, "types": open_}
    if open_:
        return [_IDEMPOTENCY.warning(f"no key is needed: {named(open_)}", told)]
    if not facts.own.is_key_required:
        return [_IDEMPOTENCY.warning("the setting is optional, though every type that is published needs a key", told)]
    return [_IDEMPOTENCY.ok("every submission needs a key, as this process's settings have it", told)]


_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
#: Words in the names of fields, in the singular.
_TELLING = frozenset(
    {
        *("email", "mail", "password", "passwd", "passphrase", "secret", "token", "apikey", "credential", "card", "creditcard", "pan"),
        *("iban", "cvc", "cvv", "ssn", "phone", "mobile", "birthday", "birthdate"),
    }
)
#: Two words, one behind the other.
_TELLING_PAIRS = frozenset({("e", "mail"), ("api", "key"), ("private", "key"), ("access", "key"), ("birth", "date")})
#: Words that tell of a number too.
_NUMERIC = frozenset({"cvc", "cvv", "ssn", "phone", "mobile", "card", "creditcard", "pan"})


def is_telling(name: str, schema: Mapping[str, Any]) -> bool:
    """Whether a field that is called and typed so looks like a secret or like what tells of a person.

    A flag or a number of tokens tells nothing; a number of a card does.
    """
    kind = schema.get("type")
    words = [word.lower() for word in _WORDS.findall(name)]
    words = [word.removesuffix("s") if len(word) > 4 else word for word in words]
    if kind in ("integer", "number"):
        return not _NUMERIC.isdisjoint(words)
    if kind != "string" and (kind is not None or any(key in schema for key in ("$ref", "anyOf", "oneOf", "allOf"))):
        return False
    return not _TELLING.isdisjoint(words) or not _TELLING_PAIRS.isdisjoint(pairwise(words))


def pii_marks(facts: Facts) -> list[Finding]:
    """Fields whose names look like an e-mail address, a password, a token or a card are marked."""
    found = {entry.type: unmarked(entry.schema, is_telling) for entry in facts.store.types}
    bare = {name: paths for name, paths in found.items() if paths}
    if bare:
        paths = named(f"{name}: {path}" for name, paths in bare.items() for path in paths)
        return [_MARKS.warning(f"not marked: {paths}", {"fields": bare})]
    return [_MARKS.ok("no field of a payload looks like a secret or a person's and is not marked")]


def owners(facts: Facts) -> list[Finding]:  # noqa: ARG001 - all rules are called alike
    """Skipped: nothing says whose a type is."""
    return [_OWNERS.skipped("the catalogue has no field for owners")]


def unreadable(facts: Facts) -> list[Finding]:
    """Entries of the catalogue that this version cannot read are told, since no rule can judge them; nothing when there are none."""
    names = facts.store.unreadable
    rule = Rule(
        "catalogue", "types that cannot be read here are judged by no rule", "run this command with the version that the workers have"
    )
    return [rule.warning(f"cannot be read: {named(names)}", {"types": list(names)})] if names else []


def _judged(rule: Rule, told: Mapping[str, Sequence[str]], words: Mapping[str, str], otherwise: str) -> Finding:
    found = {kind: list(names) for kind, names in told.items() if names}
    if not found:
        return rule.ok(otherwise)
    return rule.warning("; ".join(f"{words[kind]}: {named(names)}" for kind, names in found.items()), found)


RULES = (unreadable, retries, timeouts, dependency_limits, idempotency, pii_marks, owners)
