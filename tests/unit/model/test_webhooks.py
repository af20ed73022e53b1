"""Signing by Standard Webhooks."""

from __future__ import annotations

import base64

import pytest

from taskmaster.model.webhooks import key_of, new_secret, signature

#: The message with which the specification's own libraries are tested; signed with openssl.
SECRET, SIGNED = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
MESSAGE = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')


def test_the_known_example_is_signed_as_it_should_be() -> None:
    assert signature([SECRET], *MESSAGE) == SIGNED


def test_each_secret_signs_while_one_replaces_another() -> None:
    new = new_secret()

    assert signature([new, SECRET], *MESSAGE).split(" ") == [signature([new], *MESSAGE), SIGNED]


def test_every_part_is_signed() -> None:
    name, at, body = MESSAGE

    assert (
        len({signature([SECRET], *one) for one in ((name, at, body), (name + "x", at, body), (name, at + 1, body), (name, at, b"{}"))}) == 4
    )


def test_a_fresh_secret_has_256_bits() -> None:
    assert len(key_of(new_secret())) == 32
    assert new_secret() != new_secret()


@pytest.mark.parametrize(
    "secret",
    ["", "whsec_", "secret", SECRET[6:], "whsec_" + "A" * 31, "whsec_!" + "A" * 43, "whsec_" + base64.b64encode(b"x" * 65).decode()],
)
def test_what_is_no_secret_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(ValueError, match="24 to 64 bytes") as refused:
        key_of(secret)

    assert not secret[6:] or secret[6:] not in str(refused.value)
