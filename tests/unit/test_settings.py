"""Where settings come from, and what is said when one of them is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from taskmaster.engine.retention import kept_of, limits_of
from taskmaster.errors import ConfigurationError
from taskmaster.model.addresses import masked_url
from taskmaster.model.retention import Kept
from taskmaster.plugins.registry import Registry
from taskmaster.settings import NAMES, PREFIX, Settings, describe, help_text, load, slots_of, to_environ
from taskmaster.worker.identity import groups_of


def sources(settings: Settings) -> dict[str, str]:
    return {shown.name: shown.source for shown in describe(settings)}


def test_defaults_need_nothing(tmp_path: Path) -> None:
    settings = load({}, {}, tmp_path)

    assert (settings.host, settings.port, settings.redis_url) == ("127.0.0.1", 8000, None)
    assert (settings.worker_processes, settings.lease_ms, settings.drain_ms, settings.partitions) == (2, 30_000, 30_000, 1)
    assert settings.data_dir == tmp_path / ".taskmaster"
    assert set(sources(settings).values()) == {"default"}


def test_each_source_wins_over_the_ones_before_it(tmp_path: Path) -> None:
    """Defaults < TOML < .env < environment < command line."""
    (tmp_path / "taskmaster.toml").write_text("port = 1001\nconcurrency = 11\nlease_ms = 10001\ndrain_ms = 1\n")
    (tmp_path / ".env").write_text("TASKMASTER_PORT=1002\nTASKMASTER_CONCURRENCY=12\nTASKMASTER_LEASE_MS=10002\n")
    environ = {"TASKMASTER_PORT": "1003", "TASKMASTER_CONCURRENCY": "13"}

    settings = load({"port": "1004"}, environ, tmp_path)

    assert (settings.port, settings.concurrency, settings.lease_ms, settings.drain_ms) == (1004, 13, 10_002, 1)
    wanted = {"port": "command line", "concurrency": "environment", "lease_ms": ".env", "drain_ms": "taskmaster.toml", "host": "default"}
    assert wanted.items() <= sources(settings).items()


def test_a_wrong_value_that_is_overridden_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "taskmaster.toml").write_text('port = "abc"\n')

    assert load({}, {"TASKMASTER_PORT": "8001"}, tmp_path).port == 8001


def test_redis_url_is_the_last_resort_for_the_stores_address(tmp_path: Path) -> None:
    """TASKMASTER_REDIS_URL wins wherever it is written; REDIS_URL only wins over nothing."""
    (tmp_path / ".env").write_text("TASKMASTER_REDIS_URL=redis://ours:6379/0\n")

    assert load({}, {"REDIS_URL": "redis://theirs:6379"}, tmp_path).redis_url == "redis://ours:6379/0"
    (tmp_path / ".env").unlink()
    settings = load({}, {"REDIS_URL": "redis://theirs:6379"}, tmp_path)
    assert settings.redis_url == "redis://theirs:6379"
    assert sources(settings)["redis_url"] == "environment (REDIS_URL)"


def test_the_collectors_address_is_also_taken_from_opentelemetrys_names(tmp_path: Path) -> None:
    """Ours win over them, wherever they stand."""
    theirs = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://theirs:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}

    settings = load({}, theirs | {"TASKMASTER_OTLP_PROTOCOL": "GRPC"}, tmp_path)

    assert (settings.otlp_endpoint, settings.otlp_protocol) == ("https://theirs:4318", "grpc")
    assert sources(settings)["otlp_endpoint"] == "environment (OTEL_EXPORTER_OTLP_ENDPOINT)"


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("OTLP_ENDPOINT", "collector:4317", "an address, http:// or https://"),
        ("OTLP_ENDPOINT", "http://", "an address, http:// or https://"),
        ("OTLP_PROTOCOL", "http/json", "grpc or http/protobuf"),
        ("TRACE_RATIO", "1.5", "a number from 0 to 1"),
        ("TRACE_URL", "http://jaeger/trace/", "with {trace_id} in it"),
        ("TRACE_URL", "javascript:alert('{trace_id}')", "an address, http:// or https://"),
    ],
)
def test_a_wrong_setting_of_traces_says_what_would_do(tmp_path: Path, name: str, value: str, wanted: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        load({}, {PREFIX + name: value}, tmp_path)

    assert wanted in raised.value.message


def test_a_password_of_the_collector_is_never_shown(tmp_path: Path) -> None:
    settings = load({}, {"TASKMASTER_OTLP_ENDPOINT": "https://me:s3cret@host:1"}, tmp_path)
    shown = {one.name: one.value for one in describe(settings)}["otlp_endpoint"]

    assert shown == "https://me:***@host:1"
    with pytest.raises(ConfigurationError) as raised:
        load({}, {"TASKMASTER_OTLP_ENDPOINT": "gopher://me:s3cret@host:1"}, tmp_path)
    assert "s3cret" not in raised.value.message


def test_an_empty_variable_counts_as_none(tmp_path: Path) -> None:
    """Compose files pass variables on empty when nobody set them."""
    settings = load({}, {"TASKMASTER_PORT": "", "TASKMASTER_REDIS_URL": " ", "REDIS_URL": ""}, tmp_path)

    assert (settings.port, settings.redis_url) == (8000, None)


def test_lists_and_pairs_in_both_spellings(tmp_path: Path) -> None:
    environ = {"TASKMASTER_QUEUE_CONCURRENCY": "email-queue=3, report-queue=2", "TASKMASTER_PLUGINS": "email, demo,"}
    environ |= {"TASKMASTER_QUEUE_GROUPS": "mail.a+sms=8,c+d=2"}
    text = load({"queues": "a,b"}, environ, tmp_path)
    (tmp_path / "taskmaster.toml").write_text(
        'plugins = ["email", "demo"]\nqueues = ["a", "b"]\n[queue_concurrency]\nemail-queue = 3\nreport-queue = 2\n'
        '[queue_groups]\n"mail.a+sms" = 8\n"c+d" = 2\n'
    )
    table = load({}, {}, tmp_path)

    for settings in (text, table):
        assert settings.queue_concurrency == {"email-queue": 3, "report-queue": 2}
        assert settings.queue_groups == {"mail.a+sms": 8, "c+d": 2}
        assert (settings.plugins, settings.queues) == (("email", "demo"), ("a", "b"))


@pytest.mark.parametrize("text", ["mail=8", "mail+=8", "mail+sms", "mail+sms=0", "mail+sms=8,sms+c=2", "mail+mail=2", "A+b=1"])
def test_a_group_has_several_queues_and_a_queue_one_group(tmp_path: Path, text: str) -> None:
    """Said with the setting's name."""
    with pytest.raises(ConfigurationError, match=r"queue.groups"):
        load({"queue_groups": text}, {}, tmp_path)


def test_queues_of_a_group_share_its_slots() -> None:
    """Those that the workers do not serve are left out of it; others stand alone, whatever the group's queues have of their own."""
    settings = Settings(concurrency=8, queue_concurrency={"a": 5, "d": 3}, queue_groups={"a+b": 4}, queues=("a", "b", "d"))
    fewer = Settings(queue_groups={"a+b": 4}, queues=("b",))
    empty = Registry({})

    assert groups_of(settings, empty, suspects=False) == [(3, ["d"]), (4, ["a", "b"])]
    assert groups_of(fewer, empty, suspects=False) == [(4, ["b"])]
    assert [slots_of(settings, queue) for queue in "abcd"] == [4, 4, 8, 3]


def test_retention_in_both_spellings(tmp_path: Path) -> None:
    """Queues have dots in their names; what a queue does not say is said by `*`, then by the settings for all."""
    environ = {"TASKMASTER_RETENTION": "a.b.completed.count=5, a.b.completed.bytes=1000,*.failed.age_ms=60000"}
    text = load({}, environ, tmp_path)
    (tmp_path / "taskmaster.toml").write_text(
        'keep_failed = 7\n[retention."a.b".completed]\ncount = 5\nbytes = 1000\n[retention."*".failed]\nage_ms = 60000\n'
    )
    table = load({}, {}, tmp_path)

    assert text.retention == table.retention
    assert kept_of(table, "a.b") == {
        "completed": Kept(5, 604_800_000, 1_000),
        "failed": Kept(7, 60_000, -1),
        "cancelled": Kept(10_000, 604_800_000, -1),
    }
    limits = limits_of(table)
    assert (limits.completed, limits.failed) == (Kept(10_000), Kept(7, 60_000))
    assert limits.queues == {"a.b": tuple(kept_of(table, "a.b").values())}


def test_choices_are_read_in_any_case(tmp_path: Path) -> None:
    assert load({}, {"TASKMASTER_LOG_LEVEL": "INFO"}, tmp_path).log_level == "info"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("PORT", "abc", "TASKMASTER_PORT is 'abc' (environment): expected a whole number from 0 to 65535"),
        ("PORT", "65536", "from 0 to 65535"),
        ("PORT", "-1", "from 0 to 65535"),
        ("PORT", "1.5", "from 0 to 65535"),
        ("LEASE_MS", "999", "from 1000 to 3600000"),
        ("PARTITIONS", "0", "from 1 to 1024"),
        ("IDEMPOTENCY", "perhaps", "expected required or optional"),
        ("LOG_FORMAT", "xml", "expected auto or json or console"),
        ("QUEUE_CONCURRENCY", "email-queue", "queue=number pairs"),
        ("QUEUE_CONCURRENCY", "email-queue=lots", "queue=number pairs"),
        ("QUEUE_CONCURRENCY", "email-queue=0", "queue=number pairs"),
        ("QUEUE_CONCURRENCY", "=3", "queue=number pairs"),
        ("RETENTION", "email-queue", "queue.state.count=n"),
        ("RETENTION", "email-queue.completed.count", "queue.state.count=n"),
        ("RETENTION", "email-queue.completed=3", "queue.state.count=n"),
        ("RETENTION", "email-queue.waiting.count=3", "states are completed, failed, cancelled"),
        ("RETENTION", "email-queue.completed.size=3", "queue.state.count=n"),
        ("RETENTION", "email-queue.completed.count=-1", "queue.state.count=n"),
        ("RETENTION", "email-queue.completed.age_ms=soon", "queue.state.count=n"),
        ("KEEP_AGE_MS", "0", "from 1000 to"),
        ("SCOPES", "dlq:everything", "some of jobs:submit, jobs:cancel, jobs:delete, dlq:replay, dlq:discard"),
    ],
)
def test_a_wrong_value_is_reported_with_its_place_and_what_would_do(name: str, value: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({}, {PREFIX + name: value}, tmp_path)

    assert expected in caught.value.message
    assert f"{PREFIX}{name} is {value!r}" in caught.value.message


@pytest.mark.parametrize(
    "url", ["localhost:6379", "http://x", "redis://", "redis://host:port", "unix://", "redis://:s3cret@host:99999", "s3cret"]
)
def test_a_wrong_store_address_is_refused_without_showing_it(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not the address of a Redis") as caught:
        load({}, {"TASKMASTER_REDIS_URL": url}, tmp_path)

    assert "s3cret" not in caught.value.message


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("port = true\n", "port is True (taskmaster.toml): expected a whole number"),
        ("port = [1]\n", "expected a whole number"),
        ('queues = [""]\n', "names separated by commas"),
        ("data_dir = 3\n", "data_dir is 3"),
        ("redis_url = 3\n", "not the address of a Redis"),
        ("prot = 1\n", "unknown setting prot (taskmaster.toml); did you mean port?"),
        ("sources = {}\n", "unknown setting sources"),
        ("port = \n", "cannot be read as TOML"),
    ],
)
def test_a_wrong_file_is_reported(toml: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "taskmaster.toml").write_text(toml)

    with pytest.raises(ConfigurationError) as caught:
        load({}, {}, tmp_path)

    assert said in caught.value.message


def test_an_unknown_name_is_an_error_with_the_nearest_known_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"unknown setting TASKMASTER_WORKER_PROCESES .*did you mean TASKMASTER_WORKER_PROCESSES"):
        load({}, {"TASKMASTER_WORKER_PROCESES": "3"}, tmp_path)
    with pytest.raises(ConfigurationError, match="did you mean lease_ms"):
        load({"leasems": "1"}, {}, tmp_path)
    (tmp_path / ".env").write_text("TASKMASTER_PROT=1\n")
    with pytest.raises(ConfigurationError, match=r"TASKMASTER_PROT \(.env\); did you mean TASKMASTER_PORT"):
        load({}, {}, tmp_path)


def test_names_of_plugins_and_of_the_set_up_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("TASKMASTER_PLUGIN_EMAIL_FROM=a@example.com\nTASKMASTER_PLUGIN_X=file\nOTHER=1\n")

    settings = load({}, {"TASKMASTER_PLUGIN_X": "y", "TASKMASTER_VENV": "/v", "PATH": "/bin"}, tmp_path)

    assert settings.plugin_environ == {"TASKMASTER_PLUGIN_EMAIL_FROM": "a@example.com", "TASKMASTER_PLUGIN_X": "y"}


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("port = 1\n")

    assert load({}, {"TASKMASTER_CONFIG": "other.toml"}, tmp_path).port == 1
    assert load({"config": "other.toml"}, {}, tmp_path).port == 1
    with pytest.raises(ConfigurationError, match="does not exist"):
        load({}, {"TASKMASTER_CONFIG": "missing.toml"}, tmp_path)


def test_dotenv_understands_what_people_write(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "# comment\n\nexport TASKMASTER_PORT='8001' # ours\nTASKMASTER_HOST = \"0.0.0.0\"\n"
        "TASKMASTER_QUEUES=a,b # two\nTASKMASTER_PLUGINS=  # none\nTASKMASTER_REDIS_URL=redis://h:1/0#x\n"
    )

    settings = load({}, {}, tmp_path)

    assert (settings.port, settings.host, settings.queues, settings.plugins) == (8001, "0.0.0.0", ("a", "b"), ())
    assert settings.redis_url == "redis://h:1/0#x"


def test_a_line_that_is_no_assignment_is_reported_with_its_number(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\nnonsense\n")

    with pytest.raises(ConfigurationError, match="line 2"):
        load({}, {}, tmp_path)


def test_a_child_process_gets_the_same_settings(tmp_path: Path) -> None:
    cli = {"port": "0", "queue_concurrency": "a=1,b=2", "plugins": "x,y", "redis_url": "redis://u:p@h:1/2", "idempotency": "optional"}
    cli |= {"retention": "a.b.completed.count=5,a.b.failed.bytes=9,*.cancelled.age_ms=1000", "scopes": "jobs:submit,dlq:discard"}
    cli |= {"queue_groups": "mail+sms=8,c+d=2"}
    parent = load(cli, {"TASKMASTER_PLUGIN_X": "1"}, tmp_path)

    child = load({}, to_environ(parent), tmp_path / "elsewhere")

    assert [getattr(child, name) for name in NAMES] == [getattr(parent, name) for name in NAMES]
    assert child.plugin_environ == parent.plugin_environ


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://user:s3cret@host:1/0", "redis://user:***@host:1/0"),
        ("rediss://:s3cret@host:1/0", "rediss://:***@host:1/0"),
        ("redis://:s3c@ret@host:1/0", "redis://:***@host:1/0"),
        ("unix:///tmp/a.sock", "unix:///tmp/a.sock"),
        ("unix://:s3cret@/tmp/a.sock", "unix://:***@/tmp/a.sock"),
        ("redis://host/0?password=s3cret&db=1", "redis://host/0?password=***&db=1"),
        ("redis://[s3cret", "***"),
    ],
)
def test_secrets_are_masked(url: str, shown: str) -> None:
    assert masked_url(url) == shown


def test_no_secret_is_shown(tmp_path: Path) -> None:
    settings = load({}, {"TASKMASTER_REDIS_URL": "redis://:s3cret@host:1/0"}, tmp_path)

    assert "s3cret" not in repr(settings) + str(describe(settings))


def test_every_setting_says_what_it_is_for() -> None:
    assert [name for name in NAMES if not help_text(name)] == []
