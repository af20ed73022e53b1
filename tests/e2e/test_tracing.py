"""Traces over processes: from the request through the job's record into handlers of every kind, as a collector gets them."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from support.collector import Collector
from support.eventually import eventually
from support.receiver import Receiver
from support.traced import CALLER, CALLERS_TRACE, World, world

pytestmark = [pytest.mark.server("valkey"), pytest.mark.timeout(180)]


def test_a_job_with_two_retries_a_child_and_a_callback_is_one_trace(clean_server, tmp_path) -> None:
    """A type that asks for it: request, submission, three attempts, what they do, what they submit and who is told are one tree."""
    settings = {"webhook_allow": "127.0.0.1"}
    with (
        Collector() as collector,
        Receiver() as receiver,
        world(clean_server.url, tmp_path, otlp_endpoint=collector.endpoint, **settings) as it,
    ):
        job_id = it.submit("child", {"fails": 2, "then": "coroutine"}, callback=receiver.url)
        job = it.ended(job_id)
        wanted = [
            "send default",
            "send default > process child",
            "send default > process child",
            "send default > process child",
            "send default > process child > call the bank",
            "send default > process child > call the bank",
            "send default > process child > call the bank",
            "send default > process child > order",
            "send default > process child > order > send default",
            "send default > process child > order > send default > process coroutine",
            "send default > process child > order > send default > process coroutine > call the bank",
            "send default > process taskmaster-webhook",
        ]
        collector.wait_for_tree(wanted)

        assert {span.trace_id for span in collector.spans} == {CALLERS_TRACE}
        assert [heard.headers["traceparent"][3:35] for heard in receiver.seen] == [CALLERS_TRACE]
        assert {span.service for span in collector.named("process child")} == {"taskmaster-worker"}
        assert {(span.kind, span.service) for span in collector.named("send default")} == {
            ("producer", "taskmaster-api"),
            ("producer", "taskmaster-worker"),
        }
        attempts = sorted(collector.named("process child"), key=lambda span: span.facts["taskmaster.job.attempt"])
        assert [span.facts["taskmaster.job.attempt"] for span in attempts] == [1, 2, 3]
        assert [span.facts["taskmaster.job.outcome"] for span in attempts] == ["retried", "retried", "completed"]
        assert [span.facts.get("error.type") for span in attempts] == ["ConnectionError"] * 2 + [None]
        assert [span.is_error for span in attempts] == [True, True, False]
        assert {span.kind for span in attempts} == {"consumer"}
        assert attempts[0].facts["messaging.message.id"] == job_id
        assert job["traceId"] == CALLERS_TRACE
        assert job["traceUrl"] == f"http://jaeger.test/trace/{CALLERS_TRACE}"
        assert {attempt["traceId"] for attempt in it.attempts(job_id)} == {CALLERS_TRACE}
        lines = it.lines_of(job_id)
        assert {line["event"] for line in lines} >= {"job.started", "job.failed", "job.completed", "a line of the handler"}
        assert {(line["traceId"], line["plugin"]) for line in lines} == {(CALLERS_TRACE, "traced==1.0")}


def test_attempts_are_linked_to_their_submission_by_default(clean_server, tmp_path) -> None:
    """Each attempt begins a trace of its own with a link to the span of the submission; the API tells both."""
    with Collector() as collector, world(clean_server.url, tmp_path, otlp_endpoint=collector.endpoint) as it:
        job_id = it.submit("linked", {"fails": 2})
        it.ended(job_id)

        attempts = collector.wait_for("process linked", 3)
        collector.wait_for("call the bank", 3)
        [sent] = collector.wait_for("send default")
        assert {span.links for span in attempts} == {((CALLERS_TRACE, sent.span_id),)}
        traces = {span.trace_id for span in attempts}
        assert len(traces | {CALLERS_TRACE}) == 4
        collector.wait_for_tree(["process linked"] * 3 + ["process linked > call the bank"] * 3 + ["send default"])
        told = it.attempts(job_id)
        assert {attempt["traceId"] for attempt in told} == traces
        assert told[0]["traceUrl"] == f"http://jaeger.test/trace/{told[0]['traceId']}"
        assert {line["traceId"] for line in it.lines_of(job_id)} == traces


def test_spans_of_an_isolated_handler_are_children_of_its_attempt(clean_server, tmp_path) -> None:
    """What a child process traces comes home with the end of its attempt, without the texts of its errors."""
    with Collector() as collector, world(clean_server.url, tmp_path, otlp_endpoint=collector.endpoint) as it:
        job_id = it.submit("isolated", {"fails": 1, "secret": "hunter2"})
        job = it.ended(job_id)

        inside = "send default > process isolated"
        collector.wait_for_tree(["send default", *[inside] * 2, *[f"{inside} > call the bank"] * 2])
        assert job["result"] == CALLERS_TRACE
        inner = collector.named("call the bank")
        assert {span.facts["shop.attempt"] for span in inner} == {1, 2}
        assert {events for span in inner for events, _ in span.events} == {"exception"}
        assert [facts for span in inner for _, facts in span.events] == [
            {"exception.type": "ConnectionError", "exception.escaped": "False"}
        ]
        assert not [span.text for span in collector.spans if "hunter2" in span.text or "hung up" in span.text]


def test_the_decision_of_the_caller_holds(clean_server, tmp_path) -> None:
    """A caller that does not record its trace makes nobody record: neither linked attempts nor children."""
    with Collector() as collector, world(clean_server.url, tmp_path, otlp_endpoint=collector.endpoint) as it:
        quiet = [it.submit(name, {"then": "linked"}, caller=CALLER[:-1] + "0", key=name) for name in ("linked", "child", "isolated")]
        for job_id in quiet:
            assert it.ended(job_id)["traceId"] == CALLERS_TRACE
        loud = it.submit("linked", caller="", key="loud")
        it.ended(loud)

        collector.wait_for_tree(["process linked", "process linked > call the bank", "send default"])
        assert [span.facts["messaging.message.id"] for span in collector.named("process linked")] == [loud]
        assert {line["traceId"] for job_id in quiet for line in it.lines_of(job_id)} == {CALLERS_TRACE}


def test_a_job_of_a_schedule_has_a_submission_to_be_linked_to(clean_server, tmp_path) -> None:
    """What nobody requested begins a trace where it is made."""
    with Collector() as collector, world(clean_server.url, tmp_path, otlp_endpoint=collector.endpoint) as it:
        schedule = {"type": "linked", "payload": {}, "everyMs": 3_600_000}
        assert httpx.put(f"{it.address}/schedules/hourly", json=schedule, timeout=30).status_code == 201
        job_id = httpx.post(f"{it.address}/schedules/hourly/trigger", timeout=30).json()["jobId"]
        it.ended(job_id)

        [made] = collector.wait_for("create default")
        [attempt] = collector.wait_for("process linked")
        assert attempt.links == ((made.trace_id, made.span_id),)
        assert (made.kind, made.facts["messaging.message.id"]) == ("producer", job_id)


def test_without_an_endpoint_ids_go_on_and_nothing_is_loaded(clean_server, tmp_path) -> None:
    """The trace id is told and handed on to what a handler submits; OpenTelemetry's SDK is in no process."""
    with world(clean_server.url, tmp_path) as it:
        job_id = it.submit("child", {"then": "linked"})
        assert it.ended(job_id)["traceId"] == CALLERS_TRACE

        children = eventually(lambda: httpx.get(f"{it.address}/jobs?type=linked").json()["items"], 10)
        assert it.ended(children[0]["jobId"])["traceId"] == CALLERS_TRACE
        assert [attempt["traceId"] for attempt in it.attempts(job_id)] == [None]
        for pid in (it.api.popen.pid, *it.worker.children().values()):
            maps = Path(f"/proc/{pid}/maps").read_text()
            assert "grpc" not in maps
            assert "google/_upb" not in maps


def test_a_problem_tells_the_trace_of_its_request(clean_server, tmp_path) -> None:
    """The trace id of a problem document is the recorded one, and the span says which problem it was."""
    with Collector() as collector, world(clean_server.url, tmp_path, otlp_endpoint=collector.endpoint) as it:
        answer = httpx.post(f"{it.address}/jobs", json={"type": "nope", "idempotencyKey": "k"})

        assert answer.status_code == 422
        [span] = collector.wait_for("send")
        assert answer.json()["traceId"] == span.trace_id
        assert (span.facts["error.type"], span.is_error) == ("unknown-job-type", True)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_collector_that_is_not_ours_understands_the_spans(clean_server, tmp_path, protocol) -> None:
    """Rotel, an independent implementation, gets the whole tree of retries, child and callback, over both protocols."""
    with (
        rotel(tmp_path) as (endpoints, said),
        Receiver() as receiver,
        world(clean_server.url, tmp_path, otlp_endpoint=endpoints[protocol], otlp_protocol=protocol, webhook_allow="127.0.0.1") as it,
    ):
        it.ended(it.submit("child", {"fails": 2, "then": "coroutine"}, callback=receiver.url))

        eventually(lambda: len(re.findall(r"Name\s*: (?:send default|process |call the bank|order)", said())) >= 12, 20, said)
        spans = re.findall(r"Trace ID\s*: (\S+)\s+Parent ID\s*: (\S*)\s+ID\s*: (\S+)\s+Name\s*: ([^\n]+)", said())
        names = {span_id: name.strip() for _, _, span_id, name in spans}
        assert {trace_id for trace_id, *_ in spans} == {CALLERS_TRACE}
        assert {(name.strip(), names.get(parent)) for _, parent, _, name in spans} == {
            ("send default", None),
            ("process child", "send default"),
            ("call the bank", "process child"),
            ("order", "process child"),
            ("send default", "order"),
            ("process coroutine", "send default"),
            ("call the bank", "process coroutine"),
            ("process taskmaster-webhook", "send default"),
        }
        assert len(spans) == 12


@contextlib.contextmanager
def rotel(folder: Path) -> Iterator[tuple[dict[str, str], Any]]:
    """The collector's binary, its endpoints by protocol, and what it has said."""
    found = pytest.importorskip("rotel", reason="rotel has no wheel for this system")
    ports = {name: free_port() for name in ("grpc", "http/protobuf")}
    log = folder / "rotel.log"
    folder.mkdir(exist_ok=True)
    command = [str(Path(found.__file__).parent / "rotel-agent"), "start", "--exporter", "blackhole"]
    command += ["--otlp-grpc-endpoint", f"127.0.0.1:{ports['grpc']}", "--otlp-http-endpoint", f"127.0.0.1:{ports['http/protobuf']}"]
    command += ["--debug-log", "traces", "--debug-log-verbosity", "detailed"]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            for port in ports.values():
                eventually(lambda port=port: can_connect(port), 20, log.read_text)
            yield {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}, log.read_text
        finally:
            process.terminate()
            process.wait(10)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def can_connect(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_collector_that_answers_nothing_costs_nothing_but_its_spans(clean_server, tmp_path, protocol) -> None:
    """F59: thousands of spans more than may wait: jobs end, memory is bounded, the loss is told, and the end is not held up."""
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(64)  # connections are taken by the kernel, and never answered
        endpoint = f"http://127.0.0.1:{hole.getsockname()[1]}"
        with world(clean_server.url, tmp_path, otlp_endpoint=endpoint, otlp_protocol=protocol) as it:
            for first in range(0, 4_000, 500):
                jobs = [{"type": "child", "idempotencyKey": f"k{n}"} for n in range(first, first + 500)]
                answer = httpx.post(f"{it.address}/jobs/bulk", json={"jobs": jobs}, headers={"traceparent": CALLER}, timeout=30)
                assert answer.status_code == 202
            before = resident_mb(it)

            def done() -> bool:
                return httpx.get(f"{it.address}/queues/default").json()["counts"]["completed"] == 4_000

            eventually(done, 60)
            assert resident_mb(it) - before < 60
            began = time.monotonic()
            it.worker.process.terminate()
            assert it.worker.wait(20) == 0
            assert time.monotonic() - began < 6
            lost = sum(line["spans"] for line in it.worker.said("trace.lost"))
            assert lost > 4_000


def resident_mb(it: World) -> float:
    return sum(psutil.Process(pid).memory_info().rss for pid in it.worker.children().values()) / 1_048_576
