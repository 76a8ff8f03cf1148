"""What the gateway and its peers do in the same situation: `python -m benchmarks.comparison [--write]`.

Each peer that is installed stands in front of one old server, which notes down all that it hears.  A client does the
same with each of them.  The answers are the first table of docs/comparison.md; `--write` writes it.  A minute, no root.
"""

from __future__ import annotations

import argparse
import http.server
import re
import socket
import socketserver
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import client, peers, processes
from .peers import IMAP_IMPLICIT, IMAP_STARTTLS, ROOT, SMTP_STARTTLS, Peer, Running, Stage

PAGE = ROOT / "docs" / "comparison.md"
BEGIN, END = "<!-- Written by `python -m benchmarks.comparison --write`. -->\n", "<!-- End. -->\n"
PATIENCE = 5.0
"""Seconds that an answer may take."""
RENEWED = 15.0
"""Seconds after which a renewed certificate that nobody was told of has not been found."""
LOGIN = b"AHVzZXIAcGFzcw=="
_IMAP = b"CAPABILITY IMAP4rev1 AUTH=PLAIN XOLDSERVER"
_EHLO = b"250-old\r\n250-SIZE 12345678\r\n250-XOLDSERVER\r\n250-XCLIENT ADDR\r\n250 AUTH PLAIN\r\n"


@dataclass
class Heard:
    """What the old server has heard, of all connections."""

    octets: bytearray = field(default_factory=bytearray)


class _Line(socketserver.StreamRequestHandler):
    """One connection of the old server."""

    greeting = b""

    def handle(self) -> None:
        with suppress(OSError):
            self.wfile.write(self.greeting)
            while line := self.rfile.readline(100_000):
                self.server.heard.octets += line  # type: ignore[attr-defined]
                self.wfile.write(self.answer(line.rstrip(b"\r\n")))

    def answer(self, line: bytes) -> bytes:
        raise NotImplementedError


class _OldIMAP(_Line):
    greeting = b"* OK [" + _IMAP + b"] old\r\n"
    tag = b""
    """Of a command whose literals are still coming."""

    def answer(self, line: bytes) -> bytes:
        tag, _, rest = line.partition(b" ")
        self.tag = self.tag or tag
        if line.endswith(b"}"):
            return b"+ go on\r\n"
        if rest.upper() == b"AUTHENTICATE PLAIN":
            return b"+ \r\n"
        listed = b"* " + _IMAP + b"\r\n" if rest.upper() == b"CAPABILITY" else b""
        tag, self.tag = self.tag, b""
        return listed + tag + b" OK done\r\n"


class _OldSMTP(_Line):
    greeting = b"220 old ESMTP\r\n"
    data = False

    def answer(self, line: bytes) -> bytes:
        if self.data:
            self.data = line != b"."
            return b"" if self.data else b"250 taken\r\n"
        verb = line.upper().split(b" ")[0]
        self.data = verb == b"DATA"
        replies = {b"EHLO": _EHLO, b"DATA": b"354 go on\r\n", b"AUTH": b"235 in\r\n", b"XCLIENT": b"220 old ESMTP\r\n"}
        return replies.get(verb, b"250 good\r\n")


class _Permission(http.server.BaseHTTPRequestHandler):
    """What nginx asks: every login is good."""

    def do_GET(self) -> None:
        self.send_response(200)
        port = self.server.ports[self.headers["Auth-Protocol"]]  # type: ignore[attr-defined]
        for name, value in (("Status", "OK"), ("Server", "127.0.0.1"), ("Port", str(port))):
            self.send_header(f"Auth-{name}", value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def _served(handler: type[socketserver.BaseRequestHandler], **more: object) -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        vars(server).update(more)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


class Caller:
    """A client's connection."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        # Dovecot takes a client at the server's own address for a secure one.
        self.sock = socket.create_connection(("127.0.0.1", port), PATIENCE, ("127.0.0.2", 0))
        if tls:
            self.secure(tls)

    def secure(self, tls: ssl.SSLContext) -> None:
        self.sock.getpeername()  # fails where the connection is gone; wrap_socket would leave a socket open
        self.sock = wrapped = tls.wrap_socket(self.sock, server_hostname="localhost", do_handshake_on_connect=False)
        wrapped.do_handshake()

    def say(self, octets: bytes, until: str = "") -> str:
        """What is answered, up to the expression, or to the end of the connection, or of the patience."""
        heard = b""
        with suppress(OSError):
            self.sock.sendall(octets)
            while until and not re.search(until, heard.decode("latin-1"), re.MULTILINE):
                octets = self.sock.recv(10_000)
                if not octets:
                    break
                heard += octets
        return heard.decode("latin-1")


@dataclass
class Scene:
    """A peer in front of the old server."""

    running: Running
    stage: Stage
    tls: ssl.SSLContext
    heard: Heard

    @contextmanager
    def calling(self, service: str, secure: bool = False) -> Iterator[Caller]:
        """`secure`: TLS has begun, by STARTTLS where the service has it."""
        port = self.running.ports[service]
        caller = Caller(port, self.tls if service == IMAP_IMPLICIT else None)
        try:
            if service == SMTP_STARTTLS:
                caller.say(b"", "^220 ")
            else:
                caller.say(b"", "^\\* OK")
            if secure and service == IMAP_STARTTLS:
                caller.say(b"s STARTTLS\r\n", "^s ")
                caller.secure(self.tls)
            if secure and service == SMTP_STARTTLS:
                caller.say(b"EHLO client\r\n", "^250 ")
                caller.say(b"STARTTLS\r\n", "^[2-5]")
                caller.secure(self.tls)
                caller.say(b"EHLO client\r\n", "^250 ")
            yield caller
        finally:
            caller.sock.close()


def _starttls(scene: Scene, service: str) -> str:
    with scene.calling(service, secure=True) as caller:
        if service == SMTP_STARTTLS:
            return "yes" if caller.say(b"AUTH PLAIN " + LOGIN + b"\r\n", "^[2-5]").startswith("235") else "no"
        return "yes" if "l OK" in caller.say(b"l LOGIN user pass\r\n", "^l ") else "no"


def _answers(service: str, octets: bytes, good: str) -> Callable[[Scene], str]:
    """Something that a client may say before TLS."""

    def trial(scene: Scene) -> str:
        with scene.calling(service) as caller:
            if service == SMTP_STARTTLS:
                caller.say(b"EHLO client\r\n", "^250 ")
            heard = caller.say(octets, "^(x |[2-5]\\d\\d )")
        return "answered" if re.search(good, heard, re.MULTILINE) else "refused" if heard else "connection cut"

    return trial


def _injection(scene: Scene) -> str:
    """A command in the clear, in one segment with STARTTLS (CVE-2011-0411)."""
    with scene.calling(IMAP_STARTTLS) as caller:
        heard = caller.say(b"s STARTTLS\r\ni XINJECTED\r\n", "^s ")
        if "s OK" not in heard:
            return "refused"
        try:
            caller.secure(scene.tls)
        except OSError:
            return "connection cut"
        heard = caller.say(b"l LOGIN user pass\r\n", "^l ")
    if b"XINJECTED" in scene.heard.octets or re.search("^i ", heard, re.MULTILINE):
        return "**executed inside TLS**"
    return "dropped" if "l OK" in heard else "connection cut"


def _capabilities(service: str) -> Callable[[Scene], str]:
    def trial(scene: Scene) -> str:
        with scene.calling(service, secure=True) as caller:
            if service == SMTP_STARTTLS:
                heard = caller.say(b"EHLO client\r\n", "^250 ")
                return "the server's" if "SIZE 12345678" in heard else "its own list"
            return "the server's" if "XOLDSERVER" in caller.say(b"c CAPABILITY\r\n", "^c ") else "its own list"

    return trial


def _password(scene: Scene) -> str:
    with scene.calling(IMAP_STARTTLS) as caller:
        heard = caller.say(b"x LOGIN user XSECRET\r\n", "^x ")
    if b"XSECRET" in scene.heard.octets or "x OK" in heard:
        return "**taken**"
    return "refused" if re.search("^x ", heard, re.MULTILINE) else "connection cut"


def _logged_in(caller: Caller) -> None:
    caller.say(b"AUTH PLAIN " + LOGIN + b"\r\n", "^[2-5]")


def _xclient(scene: Scene) -> str:
    """A client that names another address, to a server that believes the proxy."""
    with scene.calling(SMTP_STARTTLS, secure=True) as caller:
        _logged_in(caller)
        caller.say(b"XCLIENT ADDR=192.0.2.66\r\n", "^[2-5]")
    return "**relayed**" if b"192.0.2.66" in scene.heard.octets else "refused"


def _smuggling(scene: Scene) -> str:
    """The end of a mail with bare line feeds, which some servers take for one (CVE-2023-51764)."""
    with scene.calling(SMTP_STARTTLS, secure=True) as caller:
        _logged_in(caller)
        for line in (b"MAIL FROM:<a@example.test>", b"RCPT TO:<b@example.test>", b"DATA"):
            caller.say(line + b"\r\n", "^[2-5]")
        caller.say(b"Subject: x\r\n\r\nhello\n.\r\nMAIL FROM:<evil@example.test>\r\n.\r\n", "^[2-5]")
    return "**relayed**" if b"hello\n.\r\n" in scene.heard.octets else "mended"


def _renewal(scene: Scene) -> str:
    """The files are replaced, and nobody tells the peer."""
    new = Path(tempfile.mkdtemp(dir=scene.stage.directory))
    files = scene.stage.certificate, scene.stage.key, scene.stage.both
    before = [path.read_bytes() for path in files]
    for path, renewed in zip(files, peers.issue(new), strict=True):
        renewed.replace(path)
    wanted = ssl.PEM_cert_to_DER_cert(files[0].read_text())
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    began = time.monotonic()
    found = False
    while not found and time.monotonic() - began < RENEWED:
        caller = Caller(scene.running.ports[IMAP_IMPLICIT], blind)
        assert isinstance(caller.sock, ssl.SSLSocket)
        found = caller.sock.getpeercert(binary_form=True) == wanted
        caller.sock.close()
        time.sleep(0.2)
    for path, octets in zip(files, before, strict=True):
        path.write_bytes(octets)
    return "used within 10 s" if found else "needs a signal"


@dataclass(frozen=True)
class Row:
    title: str
    service: str
    trial: Callable[[Scene], str]


ROWS = (
    Row("STARTTLS and a login, IMAP", IMAP_STARTTLS, lambda scene: _starttls(scene, IMAP_STARTTLS)),
    Row("STARTTLS and a login, submission", SMTP_STARTTLS, lambda scene: _starttls(scene, SMTP_STARTTLS)),
    Row("implicit TLS and a login, IMAP", IMAP_IMPLICIT, lambda scene: _starttls(scene, IMAP_IMPLICIT)),
    Row("IMAP `NOOP` before STARTTLS", IMAP_STARTTLS, _answers(IMAP_STARTTLS, b"x NOOP\r\n", "^x OK")),
    Row("IMAP `ID NIL` before STARTTLS", IMAP_STARTTLS, _answers(IMAP_STARTTLS, b"x ID NIL\r\n", "^x OK")),
    Row("a second `EHLO` before STARTTLS", SMTP_STARTTLS, _answers(SMTP_STARTTLS, b"EHLO client\r\n", "^250 ")),
    Row("IMAP capabilities inside TLS", IMAP_STARTTLS, _capabilities(IMAP_STARTTLS)),
    Row("SMTP extensions inside TLS", SMTP_STARTTLS, _capabilities(SMTP_STARTTLS)),
    Row("a password before TLS, where TLS is required", IMAP_STARTTLS, _password),
    Row("a command in one segment with `STARTTLS`", IMAP_STARTTLS, _injection),
    Row("`XCLIENT` of a client", SMTP_STARTTLS, _xclient),
    Row("the end of a mail with a bare line feed", SMTP_STARTTLS, _smuggling),
    Row("renewed certificate files, without a signal", IMAP_IMPLICIT, _renewal),
)


def compare(directory: Path, everybody: Sequence[Peer], rows: Sequence[Row] = ROWS) -> dict[str, list[str]]:
    """For each peer that can be started: the words of each row."""
    directory.chmod(0o755)
    certificate, key, both = peers.issue(directory)
    tls = client.context(certificate)
    found = {}
    for peer in everybody:
        heard = Heard()
        try:
            peer.version()
        except peers.Unavailable as why:
            print(f"{peer.name}: {why}", file=sys.stderr)
            continue
        with ExitStack() as stack:
            imap = stack.enter_context(_served(_OldIMAP, heard=heard))
            smtp = stack.enter_context(_served(_OldSMTP, heard=heard))
            asked = stack.enter_context(_served(_Permission, ports={"imap": imap, "smtp": smtp}))
            ports = {"imap": imap, "smtp": smtp, "permission": asked}
            stage = Stage(directory, certificate, key, both, ports, 0, processes.raise_descriptor_limit(1024))
            stage.compiled.add(peer.name)
            running = stack.enter_context(peers.running(peer, stage))
            cells = []
            for row in rows:
                heard.octets.clear()
                scene = Scene(running, stage, tls, heard)
                attempts = 1 if peer.name == "gateway" else 2
                cells.append(_tried(row, scene, attempts) if row.service in peer.services else "-")
            found[f"{peer.name} {peer.version().split(',')[0]}" if peer.name != "gateway" else peer.name] = cells
    return found


def _tried(row: Row, scene: Scene, attempts: int) -> str:
    """Once more where a peer closed first: some wait 200 ms for a client, and then take it for another kind."""
    for _ in range(attempts - 1):
        with suppress(OSError):
            return row.trial(scene)
        scene.heard.octets.clear()
    return row.trial(scene)


def table(found: dict[str, list[str]], rows: Sequence[Row] = ROWS) -> str:
    lines = [["", *found], ["---"] * (len(found) + 1)]
    lines += [[row.title, *(cells[place] for cells in found.values())] for place, row in enumerate(rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comparison", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the table into docs/comparison.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gateway-comparison-") as directory:
        said = table(compare(Path(directory), [peers.gateway(), *peers.OTHERS]))
    print(said)
    if options.write:
        text = PAGE.read_text("utf-8")
        before, _, rest = text.partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{said}\n{END}{rest.partition(END)[2]}", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
