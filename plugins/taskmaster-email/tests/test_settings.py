"""Settings say no when the worker starts, and never show the password."""

from __future__ import annotations

import pytest
from taskmaster_email.settings import Server, Settings

URL = "TASKMASTER_PLUGIN_EMAIL_SMTP_URL"
FROM = "TASKMASTER_PLUGIN_EMAIL_FROM"


@pytest.mark.parametrize("environ", [{}, {URL: "", FROM: " "}, {"TASKMASTER_PORT": "1", "PATH": "/bin"}], ids=str)
def test_without_settings_mail_goes_to_the_outbox(environ):
    settings = Settings.from_environ(environ)

    assert settings.smtp is None
    assert str(settings.sender) == "TaskMaster <no-reply@localhost>"


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("smtp://mail.example.com", Server("mail.example.com", 25, "opportunistic")),
        ("smtp+starttls://mail.example.com/", Server("mail.example.com", 587, "starttls")),
        ("smtps://al:pw@mail.example.com:4650", Server("mail.example.com", 4650, "tls", "al", "pw")),
        ("smtps://al%40example.com:p%2Fw%3A@[::1]", Server("::1", 465, "tls", "al@example.com", "p/w:")),
    ],
)
def test_a_url_names_server_security_and_log_in(url, server):
    assert Settings.from_environ({URL: url}).smtp == server


def test_the_sender_may_have_a_name_or_none():
    assert str(Settings.from_environ({FROM: "Shop <shop@example.com>"}).sender) == "Shop <shop@example.com>"
    assert str(Settings.from_environ({FROM: "shop@example.com"}).sender) == "shop@example.com"


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({URL: "http://s3cret:s3cret@example.com"}, "begins with 'http'"),
        ({URL: "mail.example.com:25"}, "use smtp://"),
        ({URL: "smtp://"}, "after smtp://"),
        ({URL: "smtp://s3cret:s3cret@host:port"}, "is not a URL"),
        ({URL: "smtp://s3cret:s3cret@host/path"}, "nothing else"),
        ({URL: "smtp://al:s3cret#x@host"}, "is not a URL|nothing else|after smtp"),
        ({URL: "smtp://s3cret@host"}, "user and password, or neither"),
        ({FROM: "nobody"}, "invalid address"),
        ({FROM: "a@example.com, b@example.com"}, "one address"),
        ({FROM: "A <a@example.com\n>"}, FROM),
        ({"TASKMASTER_PLUGIN_EMAIL_SMTP": "x"}, f"did you mean {URL}"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_named_without_its_secrets(environ, message):
    with pytest.raises(ValueError, match=message) as caught:
        Settings.from_environ(environ)

    assert "s3cret" not in str(caught.value)


def test_a_password_over_an_open_line_is_known():
    def clear(url: str) -> bool:
        server = Settings.from_environ({URL: url}).smtp
        return server is not None and server.sends_password_in_clear

    assert clear("smtp://a:b@mail.example.com")
    assert not clear("smtp://a:b@localhost")
    assert not clear("smtp://a:b@127.0.0.1")
    assert not clear("smtp://mail.example.com")
    assert not clear("smtps://a:b@mail.example.com")


def test_a_password_is_not_in_the_settings_text():
    assert "s3cret" not in repr(Settings.from_environ({URL: "smtps://al:s3cret@host"}))
