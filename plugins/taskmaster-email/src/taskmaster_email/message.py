"""Building one message that means what it says: no foreign text becomes a header, an address or a second recipient."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP

from taskmaster_sdk import Fatal

__all__ = ["checked_address", "checked_id", "checked_name", "compose"]

#: Characters of a display name at most.
LONGEST_NAME = 200
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
#: What a job id may look like, before it becomes part of a header or a file name.
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
#: Unicode categories that have no place in a header: controls, lone surrogates, line and paragraph separators.
_REFUSED = frozenset({"Cc", "Cs", "Zl", "Zp"})


def compose(*, sender: Address, address: str, name: str, subject: str, text: str, root_id: str) -> EmailMessage:
    """A plain-text message to one recipient, with SMTP line ends.

    Its Message-ID is made of the job's root id and the sender's domain: retries and replays of one job carry the same, so that a mailbox
    can tell a repetition.

    Raises:
        Fatal: the address is not one, or something for a header or the text cannot be in it. No retry mends that.
    """
    message = EmailMessage(policy=SMTP)
    try:
        user, domain = checked_address(address)
        message["From"] = sender
        message["To"] = Address(display_name=checked_name(name), username=user, domain=domain)
        message["Subject"] = _printable(subject, "subject")
        message["Date"] = datetime.now(UTC)
        message["Message-ID"] = f"<{checked_id(root_id)}@{sender.domain}>"
        message["Auto-Submitted"] = "auto-generated"
        if "\0" in text:
            raise ValueError("the text contains a NUL character")
        message.set_content(text)
    except ValueError as error:  # UnicodeEncodeError is one too
        raise Fatal(f"cannot be sent: {error}") from error
    return message


def checked_address(address: str) -> tuple[str, str]:
    """The part before the @ and the domain, in ASCII: a domain beyond it becomes its IDNA form.

    Accepts the addresses that people have: no quoted part before the @, no comments, no literal IP address, at most 254 characters.

    Raises:
        ValueError: invalid address.
    """
    user, at, domain = address.rpartition("@")
    try:
        ascii_domain = domain.encode("idna").decode("ascii")
    except UnicodeError:
        ascii_domain = ""
    labels = ascii_domain.split(".")
    fits = at and len(user) <= 64 and len(user) + len(ascii_domain) < 254 and _LOCAL.fullmatch(user)
    if not fits or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"invalid address {_shown(address)}")
    return user, ascii_domain


def checked_id(job_id: str) -> str:
    """*job_id*, if it can stand in a Message-ID and be a file name.

    Raises:
        ValueError: it cannot.
    """
    if not _ID.fullmatch(job_id):
        raise ValueError(f"the job id is {_shown(job_id)}")
    return job_id


def checked_name(name: str) -> str:
    """*name*, if it can stand beside an address.

    Raises:
        ValueError: too long, or with a control character.
    """
    if len(name) > LONGEST_NAME:
        raise ValueError(f"the name is longer than {LONGEST_NAME} characters")
    return _printable(name, "name")


def _printable(text: str, what: str) -> str:
    bad = next((c for c in text if unicodedata.category(c) in _REFUSED), None)
    if bad is not None:
        raise ValueError(f"the {what} contains a control character, U+{ord(bad):04X}")
    return text


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 80 else text[:79] + "…")
