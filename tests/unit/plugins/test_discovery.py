"""Every plugin is loaded behind its own border: what one does wrong is in its report and nowhere else."""

from __future__ import annotations

import os
import signal
import sys
import threading

import msgspec
import pytest

from taskmaster.plugins.discovery import discover


def test_a_plugin_is_loaded_with_its_types_and_where_it_came_from(plant):
    registry = discover(source=lambda: [plant("greeter", types=("hello", "bye"), version="2.1")])

    (report,) = registry.reports
    assert (report.name, report.distribution, report.version, report.state) == ("greeter", "dist-greeter", "2.1", "loaded")
    assert report.types == registry.types == ("bye", "hello")
    assert report.error == ""
    assert report.duration_ms > 0
    handler = registry.handlers["hello"]
    assert (handler.plugin, handler.version, handler.is_async) == ("greeter", "2.1", False)
    assert handler.job.fn(handler.decoder(b'{"text": "hi"}'), None) == "hi"


def test_a_handlers_decoder_refuses_what_does_not_fit(plant):
    registry = discover(source=lambda: [plant("greeter")])

    with pytest.raises(msgspec.ValidationError, match=r"\$\.text"):
        registry.handlers["greeter"].decoder(b'{"text": 5}')


BAD = {
    "raises at import": ('raise RuntimeError("no database driver")', "RuntimeError: no database driver"),
    "needs a package that is not there": ("import a_package_that_nobody_has", "ModuleNotFoundError"),
    "is not Python": ("def (:", "SyntaxError"),
    "leaves the interpreter at import": ('raise SystemExit("bye")', "SystemExit: bye"),
    "raises a BaseException of its own": ("class Odd(BaseException): pass\nraise Odd('odd')", "Odd: odd"),
    "raises what cannot be shown": (
        "class Odd(Exception):\n    def __str__(self): raise RuntimeError('no')\nraise Odd",
        "Odd: (its message cannot be shown)",
    ),
    "raises in register_jobs": ("@hookimpl\ndef register_jobs():\n    raise ValueError('no jobs today')", "ValueError: no jobs today"),
    "leaves the interpreter in register_jobs": ("@hookimpl\ndef register_jobs():\n    raise SystemExit", "SystemExit"),
    "raises half-way through its jobs": ("@hookimpl\ndef register_jobs():\n    yield declare('half')\n    1 / 0", "ZeroDivisionError"),
    "registers what is not a job": (
        "@hookimpl\ndef register_jobs():\n    return [print]",
        "register_jobs gave builtin_function_or_method, not a Job",
    ),
    "registers nothing iterable": ("@hookimpl\ndef register_jobs():\n    return 5", "TypeError"),
    "misspells a hook": ("@hookimpl\ndef on_initt(context): pass", "on_initt"),
    "asks a hook for arguments that it does not give": ("@hookimpl\ndef on_init(context, app): pass", "app"),
    "was written for another API": ("TASKMASTER_API = 99", "written for plugin API 99, this TaskMaster has 1"),
    "declares one type twice": (
        "@hookimpl\ndef register_jobs():\n    return [declare('twin'), declare('twin')]",
        "'twin' is declared twice",
    ),
    "names a type badly": ("declare('No Spaces!')", "use 1 to 64 of"),
}


@pytest.mark.parametrize(("body", "error"), BAD.values(), ids=BAD)
def test_a_plugin_that_fails_does_not_stop_the_others(plant, body, error):
    entries = [plant("before"), plant("middle", body), plant("zlast")]

    registry = discover(source=lambda: entries)

    assert registry.types == ("before", "zlast")
    before, middle, last = registry.reports
    assert (before.state, middle.state, last.state) == ("loaded", "failed", "loaded")
    assert error in middle.error
    assert "\n" not in middle.error
    assert len(middle.error) <= 1_000
    assert [plugin.name for plugin in registry.plugins] == ["before", "zlast"]


def test_an_entry_point_that_leads_nowhere_is_a_failed_plugin(plant):
    entry = plant("lost")
    broken = type(entry)(entry.name, entry.value + ":nothing", entry.dist)

    (report,) = discover(source=lambda: [broken]).reports

    assert report.state == "failed"
    assert "AttributeError" in report.error


def test_a_class_instead_of_an_instance_is_refused_with_advice(plant):
    entry = plant("classy", "class Plugin:\n    @hookimpl\n    def register_jobs(self): return []")
    entry = type(entry)(entry.name, entry.value + ":Plugin", entry.dist)

    (report,) = discover(source=lambda: [entry]).reports

    assert "must name a module or an instance" in report.error


def test_the_api_version_of_a_module_counts_for_the_instance_it_exports(plant):
    entry = plant("instance", "TASKMASTER_API = 2\nclass P:\n    @hookimpl\n    def register_jobs(self): return []\nplugin = P()")
    entry = type(entry)(entry.name, entry.value + ":plugin", entry.dist)

    (report,) = discover(source=lambda: [entry]).reports

    assert "written for plugin API 2" in report.error


def test_ctrl_c_while_loading_is_not_swallowed(plant):
    with pytest.raises(KeyboardInterrupt):
        discover(source=lambda: [plant("stopper", "raise KeyboardInterrupt")])


def test_a_plugin_that_is_not_allowed_is_not_even_imported(plant):
    allowed, other = plant("allowed"), plant("other", "raise RuntimeError('imported')")

    registry = discover(("allowed",), source=lambda: [allowed, other])

    assert [report.name for report in registry.reports] == ["allowed"]
    assert other.value not in sys.modules


@pytest.mark.parametrize("allow", [None, ()])
def test_without_an_allow_list_all_plugins_load(plant, allow):
    entries = [plant("one"), plant("two")]

    assert discover(allow, source=lambda: entries).types == ("one", "two")


def test_an_allowed_plugin_that_is_not_installed_is_reported(plant):
    registry = discover(("greeter", "missing"), source=lambda: [plant("greeter")])

    greeter, missing = registry.reports
    assert greeter.state == "loaded"
    assert (missing.name, missing.state) == ("missing", "failed")
    assert "no installed package" in missing.error


@pytest.mark.parametrize("turned", [False, True])
def test_of_two_plugins_with_one_type_the_first_by_name_has_it_in_whatever_order_they_come(plant, turned):
    entries = [plant("aaa", types=("shared",)), plant("bbb", types=("own", "shared")), plant("ccc")]

    registry = discover(source=lambda: entries[::-1] if turned else entries)

    assert registry.handlers["shared"].plugin == "aaa"
    assert registry.types == ("ccc", "shared")
    assert registry.reports[1].state == "failed"
    assert "'shared' belongs to plugin 'aaa'" in registry.reports[1].error
    assert registry.reports[1].types == ("own", "shared")


def test_two_packages_with_one_plugin_name_do_not_mix(plant):
    entries = [plant("twin", dist="zeta", types=("z",)), plant("twin", dist="alpha", types=("a",))]

    registry = discover(source=lambda: entries)

    assert registry.types == ("a",)
    assert [(report.distribution, report.state) for report in registry.reports] == [("alpha", "loaded"), ("zeta", "failed")]
    assert "another plugin named 'twin' comes from alpha" in registry.reports[1].error


def test_a_thread_left_by_an_import_is_noted(plant):
    body = "import threading\nstopper = threading.Event()\nthreading.Thread(target=stopper.wait, name='left-behind', daemon=True).start()"
    entry = plant("threads", body)

    registry = discover(source=lambda: [entry])
    sys.modules[entry.value].stopper.set()

    assert registry.reports[0].state == "loaded"
    assert "left-behind" in registry.reports[0].notes[0]


def test_signal_handlers_and_the_working_folder_are_put_back(plant):
    assert threading.current_thread() is threading.main_thread()
    handler, folder = signal.getsignal(signal.SIGTERM), os.getcwd()

    registry = discover(source=lambda: [plant("rude", "import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.chdir('/')")])

    assert signal.getsignal(signal.SIGTERM) is handler
    assert os.getcwd() == folder
    assert ["SIGTERM" in note or "folder" in note for note in registry.reports[0].notes] == [True, True]


def test_a_payload_without_a_schema_loads_with_a_note(plant):
    body = """
    class Own: pass
    @job("odd")
    def odd(payload: Own, ctx): ...
    @hookimpl
    def register_jobs():
        return [odd]
    """

    registry = discover(source=lambda: [plant("odd", body)])

    assert registry.types == ("odd",)
    assert "has no JSON Schema" in registry.reports[0].notes[0]


def test_a_payload_that_cannot_be_decoded_refuses_the_plugin(plant):
    body = """
    @dataclass
    class A:
        x: int
    @dataclass
    class B:
        y: int
    @job("odd")
    def odd(payload: A | B, ctx): ...
    @hookimpl
    def register_jobs():
        return [odd]
    """

    registry = discover(source=lambda: [plant("odd", body)])

    assert registry.types == ()
    assert "odd: the payload type" in registry.reports[0].error


def test_a_plugin_without_hooks_is_loaded_and_serves_nothing(plant):
    entry = plant("bare", "x = 1\n# def register_jobs")

    registry = discover(source=lambda: [entry])

    assert registry.reports[0].state == "loaded"
    assert registry.types == ()


def test_metadata_that_cannot_be_read_does_not_matter(plant):
    class Broken:
        @property
        def name(self):
            raise KeyError("Name")

    entry = plant("greeter")

    (report,) = discover(source=lambda: [type(entry)(entry.name, entry.value, Broken())]).reports

    assert (report.state, report.distribution, report.version) == ("loaded", "", "")


def test_the_installed_plugins_are_found_by_default():
    """Reads this interpreter's metadata and imports what is there; nothing to assert but that it answers."""
    assert isinstance(discover(("no-such-plugin",)).reports, tuple)


def test_schedules_that_are_declared_are_taken_and_what_is_wrong_is_noted(plant):
    """One that cannot be carried out costs the plugin neither its jobs nor its other schedules."""
    body = """
        from taskmaster_sdk import Schedule

        @hookimpl
        def register_schedules():
            yield Schedule(id="nightly", type="timer", version=3, cron="0 2 * * *", dst_gap="skip", payload={"text": "{{localDate}}"})
            yield Schedule(id="never", type="timer", cron="61 * * * *")
            yield Schedule(id="odd", type="timer", every_ms=5)
            yield 5
    """
    registry = discover(source=lambda: [plant("timer", body)])

    (plugin,), (report,) = registry.plugins, registry.reports
    (nightly,) = plugin.schedules
    assert (nightly.id, nightly.plugin, nightly.version, nightly.schedule.dst.gap) == ("nightly", "timer", 3, "skip")
    assert report.state == "loaded"
    assert [note.partition(":")[0] for note in report.notes] == [
        "schedule never",
        "schedule odd",
        "register_schedules gave int, not a Schedule",
    ]


def test_a_hook_for_schedules_that_raises_fails_its_plugin_alone(plant):
    """As any other hook at registration."""
    body = "@hookimpl\ndef register_schedules():\n    raise ValueError('no clock')"

    registry = discover(source=lambda: [plant("broken", body), plant("whole")])

    assert registry.types == ("whole",)
    assert "no clock" in registry.reports[0].error
