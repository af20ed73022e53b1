"""Metrics of real processes: one port for a worker's children, sound through kills; a port that is taken; a real Prometheus."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from support.eventually import eventually
from support.processes import Processes, environ_of, serve_api
from support.prometheus import Samples, free_port, promtool, scrape
from support.proxy import StoreProxy
from support.servers import StoreServer
from support.service import WorkerService
from support.worker import Hands

pytestmark = pytest.mark.server("valkey")
#: How long no packet passes at least, seconds; the long form is 60.
SILENT_S = float(os.environ.get("SILENT_S", "0"))


@pytest.fixture
def hands(clean_server: StoreServer) -> Iterator[Hands]:
    made = Hands(clean_server.url)
    yield made
    made.close()


def attempts(samples: Samples, outcome: str = "completed") -> float:
    return sum(n for labels, n in samples.get("taskmaster_attempts_observed_total", {}).items() if ("outcome", outcome) in labels)


def test_one_port_tells_of_all_processes_and_kills_cost_no_count(clean_server, hands, tmp_path):
    """What processes counted before they were killed is still there, and their successors add to it; so does what the supervisor saw."""
    port = free_port()
    with WorkerService(clean_server.url, tmp_path, worker_metrics_port=port) as service:
        url = f"http://127.0.0.1:{port}/metrics"
        first_deliveries = 0
        for round_ in range(1, 4):
            seen = hands.all_ended(hands.submit_many("dummy", [{}] * 100 + [{"mode": "fatal"}] * 5), 60)
            first_deliveries += sum(one.deliveries == 1 for one in seen)  # not all, where a thread was long in coming
            eventually(lambda n=round_: attempts(scrape(url)) == 100 * n, what="all are counted")
            for name in ("taskmaster: worker 1", "taskmaster: worker 2"):
                os.kill(eventually(lambda name=name: service.children().get(name)), signal.SIGKILL)
            eventually(lambda n=round_: scrape(url)["taskmaster_worker_deaths_observed_total"][()] == 2 * n)
            eventually(lambda n=round_: len(service.said("worker.ready")) >= 3 + 2 * n, 30, what="successors are there")

        found = scrape(url)

        assert (attempts(found), attempts(found, "failed")) == (300, 15)
        pair = (("queue", "default"), ("type", "dummy"))
        assert found["taskmaster_job_duration_seconds_count"][pair] == 300, "successes alone"
        assert found["taskmaster_job_failed_duration_seconds_count"][pair] == 15
        assert found["taskmaster_job_wait_seconds_count"][pair] == first_deliveries > 0
        assert found["taskmaster_plugin_loaded"] == {(("plugin", "demo"),): 1}
        eventually(lambda: scrape(url)["taskmaster_worker_processes"][()] == 3, what="all hearts beat")
        assert found["taskmaster_store_call_duration_seconds_count"][(("script", "cycle"),)] > 0
        assert hands.counters()["dummy/default/completed"] == 300
        assert promtool("check", "metrics", text=httpx.get(url).text).stderr == ""
        assert list(tmp_path.rglob("*.db")) == [], "no file of metrics is there that a disk could be too full for"


def test_a_delay_that_was_asked_for_is_no_waiting(clean_server, hands, tmp_path):
    port = free_port()
    with WorkerService(clean_server.url, tmp_path, worker_metrics_port=port):
        hands.ended(hands.submit("dummy", {}, delay_ms=2_000), 20)

        url = f"http://127.0.0.1:{port}/metrics"
        eventually(lambda: attempts(scrape(url)) == 1)

        assert scrape(url)["taskmaster_job_wait_seconds_sum"][("queue", "default"), ("type", "dummy")] < 1.5


def test_the_exporter_is_started_again_and_ends_with_the_service(clean_server, hands, tmp_path):
    """Its crash touches no job; nothing listens any more when the worker has ended."""
    port = free_port()
    with WorkerService(clean_server.url, tmp_path, worker_metrics_port=port) as service:
        first = eventually(lambda: service.children().get("taskmaster: worker metrics"))
        os.kill(first, signal.SIGKILL)

        hands.ended(hands.submit("dummy", {}))
        second = eventually(lambda: service.children().get("taskmaster: worker metrics"))
        assert second != first
        assert attempts(scrape(f"http://127.0.0.1:{port}/metrics")) == 1
        service.send(signal.SIGTERM)
        assert service.wait() == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://127.0.0.1:{port}/livez")


def test_a_taken_port_costs_the_metrics_and_nothing_else(clean_server, hands, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with WorkerService(clean_server.url, tmp_path, worker_metrics_port=taken.getsockname()[1]) as service:
            assert hands.ended(hands.submit("dummy", {})).state == "completed"
            (warning,) = service.said("metrics.off")
            assert "TASKMASTER_WORKER_METRICS_PORT" in warning["hint"]
            assert "taskmaster: worker metrics" not in service.children()


def test_idle_and_hostile_clients_do_not_hold_up_a_scrape(clean_server, tmp_path):
    """Connections that say nothing, and one that says nonsense."""
    port = free_port()
    with WorkerService(clean_server.url, tmp_path, worker_metrics_port=port):
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(10)]
        with socket.create_connection(("127.0.0.1", port)) as one:
            one.sendall(b"\x00\xff nonsense\r\n\r\n")

        eventually(lambda: scrape(f"http://127.0.0.1:{port}/metrics")["taskmaster_worker_processes"][()] == 3)
        assert httpx.get(f"http://127.0.0.1:{port}/else").status_code == 404
        for client in idle:
            client.close()


@pytest.mark.timeout(180)
def test_a_real_prometheus_reads_all_three(clean_server, hands, tmp_path):
    """API, worker (through a kill) and scheduler are scraped; what they counted is what the store counted, by two ways."""
    if shutil.which("prometheus") is None:
        pytest.skip("there is no prometheus here: `apt-get install prometheus` brings it")
    worker, scheduler = free_port(), free_port()
    with (
        Processes(tmp_path) as processes,
        WorkerService(clean_server.url, tmp_path, worker_metrics_port=worker) as service,
    ):
        _, api = serve_api(processes, "api", clean_server.url)
        environ = environ_of(redis_url=clean_server.url, data_dir=tmp_path / "data", scheduler_metrics_port=scheduler)
        processes.start("scheduler", ["-m", "taskmaster", "scheduler"], environ)
        with prometheus_over(tmp_path, [api.removeprefix("http://"), f"127.0.0.1:{worker}", f"127.0.0.1:{scheduler}"]) as ask:
            eventually(lambda: ask("sum(up)") == 3, 60, lambda: f"all are up: {ask('sum(up)')}")
            hands.all_ended(hands.submit_many("dummy", [{}] * 50), 60)
            os.kill(eventually(lambda: service.children().get("taskmaster: worker 1")), signal.SIGKILL)
            hands.all_ended(hands.submit_many("dummy", [{}] * 50 + [{"mode": "fatal"}] * 3), 60)

            for query, value in {
                "sum(taskmaster_jobs_completed_total)": 100,
                'sum(taskmaster_attempts_observed_total{outcome="completed"})': 100,
                "sum(taskmaster_job_duration_seconds_count)": 100,
                "sum(dlq_jobs_total)": 3,
                "sum(taskmaster_worker_deaths_observed_total)": 1,
                "max(taskmaster_schedulers)": 1,
                "sum(taskmaster_scheduler_leading)": 1,
            }.items():
                eventually(lambda query=query, value=value: ask(query) == value, 20, lambda query=query: f"{query}: {ask(query)}")
            assert httpx.get(f"http://127.0.0.1:{scheduler}/livez").text == "alive\n"


@contextlib.contextmanager
def prometheus_over(folder: Path, targets: list[str]) -> Iterator[Callable[[str], float | None]]:
    """A Prometheus that scrapes these every second; asks it a query, whose first value is the answer."""
    port, config = free_port(), folder / "prometheus.yml"
    config.write_text(
        f"global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: tm, static_configs: [{{targets: {json.dumps(targets)}}}]}}]\n"
    )
    storage = f"--storage.tsdb.path={folder / 'tsdb'}"
    command = ["prometheus", f"--config.file={config}", storage, f"--web.listen-address=127.0.0.1:{port}"]

    def ask(query: str) -> float | None:
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}, timeout=5).json()
        except httpx.HTTPError:
            return None
        rows = answer["data"]["result"]
        return float(rows[0]["value"][1]) if rows else None

    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield ask
    finally:
        running.terminate()
        running.wait(20)


def livez(port: int) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{port}/livez", timeout=10)


@pytest.mark.timeout(240)
def test_connections_that_were_silently_dropped_mend_by_themselves(clean_server, hands, tmp_path):
    """While no packet passes liveness is red; 15 s after they pass again jobs are consumed, by the very same processes."""
    port = free_port()
    with StoreProxy(clean_server) as proxy, WorkerService(proxy.url, tmp_path, worker_metrics_port=port, lease_ms=10_000) as service:
        hands.ended(hands.submit("dummy", {}))
        assert livez(port).status_code == 200
        before = service.children()
        proxy.blackhole()
        began = time.monotonic()
        job_id = hands.submit("dummy", {})

        eventually(lambda: livez(port).status_code == 503, 60, "liveness is red")
        assert "no answer to a fetch" in livez(port).text
        assert scrape(f"http://127.0.0.1:{port}/metrics")["taskmaster_worker_cut_off_seconds"][()] > 15
        eventually(lambda: time.monotonic() - began >= SILENT_S, SILENT_S + 1, every_s=0.1)
        proxy.restore()

        assert hands.ended(job_id, 15).state == "completed"
        eventually(lambda: livez(port).status_code == 200, 15, "liveness is green again")
        assert before == service.children()


@pytest.mark.timeout(240)
def test_a_consumer_that_stopped_consuming_is_replaced(clean_server, hands, tmp_path):
    """Its heartbeats are answered, its rounds are not: the process ends itself, and its successor works."""
    port = free_port()
    with (
        StoreProxy(clean_server) as proxy,
        WorkerService(proxy.url, tmp_path, worker_metrics_port=port, worker_processes=1, silent_ms=1_000, lease_ms=3_000) as service,
    ):
        hands.ended(hands.submit("dummy", {}))
        proxy.drop_reply("cycle", 1_000)

        eventually(lambda: [one for one in service.said("worker.child_died") if "does not consume" in one["how"]], 90, "it ends itself")
        proxy.pass_replies("cycle")
        assert hands.ended(hands.submit("dummy", {}), 60).state == "completed"
