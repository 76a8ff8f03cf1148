"""What a client is asked to do, and how one sees that it was done."""

from __future__ import annotations

import email
import email.policy
import random
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from interop.places import Ended

Mode = Literal["starttls", "implicit"]
MODES: tuple[Mode, ...] = ("starttls", "implicit")
WRONG_ISSUER, WRONG_NAME = "wrong issuer", "wrong name"
CONTROLS = (WRONG_ISSUER, WRONG_NAME)
"""Ports of the gateway whose certificates a client must refuse."""
HOST = "localhost"
"""The name by which every client knows the gateway.  It is in the right certificate and not in the wrong one."""
USER = "grete"
FILES = 1000
"""Small files that an FTP client stores, and then fetches."""
SENDER = "hansel@example.org"

_LINES = (
    ".",
    "..",
    ".a line that begins with a dot",
    "",
    "Grüße aus Köln: äöüß €",
    "a1 STARTTLS",
    "QUIT",
    "an ordinary line, of which a letter has many, so that it needs more than one packet and more than one record",
)


@dataclass(frozen=True)
class Letter:
    """A mail that nobody has seen before."""

    subject: str
    text: str
    """Its lines end with LF."""

    @classmethod
    def new(cls) -> Letter:
        mark = "".join(random.choices(string.ascii_lowercase, k=16))
        return cls(f"interop {mark}", "".join(f"{line}\n" for line in (mark, *_LINES * 60, mark)))

    def octets(self, recipient: str, newline: str = "\n") -> bytes:
        header = (
            f"From: {SENDER}",
            f"To: {recipient}",
            f"Subject: {self.subject}",
            "Date: Sat, 28 Nov 2026 12:00:00 +0000",
            f"Message-ID: <{self.subject.split()[1]}@example.org>",
            "MIME-Version: 1.0",
            "Content-Type: text/plain; charset=utf-8",
            "Content-Transfer-Encoding: 8bit",
        )
        text = "".join(f"{line}\n" for line in header) + "\n" + self.text
        return text.replace("\n", newline).encode()

    def difference(self, octets: bytes) -> str:
        """What is other in this mail; nothing if it is this letter, however a client has coded it."""
        mail = email.message_from_bytes(octets.replace(b"\r\n", b"\n"), policy=email.policy.default)
        if mail["Subject"] != self.subject:
            return f"the mail has the subject {mail['Subject']!r}"
        body = mail.get_body(("plain",))
        found = body.get_content() if body is not None else ""
        # Some composers leave out the newline at the end of a text, or add one.
        if found.rstrip("\n") == self.text.rstrip("\n"):
            return ""
        pairs = enumerate(zip(found.splitlines(), self.text.splitlines(), strict=False), 1)
        for number, (came, meant) in pairs:
            if came != meant:
                return f"line {number} is {came[:60]!r}, not {meant[:60]!r}"
        return f"it has {len(found)} characters instead of {len(self.text)}"


@dataclass(frozen=True)
class Job:
    """Send this letter, or fetch the one that is there; with FTP, what `files` tells."""

    protocol: str
    mode: Mode
    port: int
    authority: Path
    """PEM: who issued the right certificate."""
    directory: Path
    """Empty, and the client's own."""
    recipient: str
    letter: Letter
    user: str = ""
    """Nothing where the server knows no login."""
    password: str = ""
    octets: int = 100_000_000
    """Of the large file."""
    files: int = FILES
    """How many small ones are stored, and then fetched."""

    def write(self, name: str, text: str | bytes) -> Path:
        """A file with secrets in it: many a client insists that it is nobody else's."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(0o600)
        return path

    def folder(self, name: str) -> Path:
        path = self.directory / name
        path.mkdir(parents=True)
        return path

    def maildir(self, name: str = "maildir") -> Path:
        for part in ("cur", "new", "tmp"):
            self.folder(f"{name}/{part}")
        return self.directory / name

    @property
    def sent(self) -> bytes:
        """The letter, for a client that takes a mail as it is."""
        return self.letter.octets(self.recipient)


def printed(ended: Ended) -> bytes:
    return ended.output


def found_in(folder: Path) -> Callable[[Ended], bytes]:
    """What a client put into this folder, which may be a maildir, or into a file of this name."""

    def find(_: Ended) -> bytes:
        files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
        mails = [content for path in files if (content := path.read_bytes()) and b"Subject:" in content]
        return b"".join(mails)

    return find


@dataclass(frozen=True)
class Command:
    """How a client does its job."""

    argv: Sequence[str | Path]
    stdin: bytes = b""
    environment: Mapping[str, str] = field(default_factory=dict)
    fetched: Callable[[Ended], bytes] = printed
    """Where what it fetched is."""
