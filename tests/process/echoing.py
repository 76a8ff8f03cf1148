"""A backend in a process of its own, which can be killed: each of its replies tells who gives it, and to what."""

from __future__ import annotations

import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Mapping

from tests.process.running import DEADLINE, LIFE, ROOT

GREETINGS: Mapping[str, str] = {
    "smtp": "220 {name} ESMTP",
    "imap": "* OK [CAPABILITY IMAP4rev1] {name}",
    "pop3": "+OK {name}",
}


def answer(protocol: str, name: str, line: str) -> str:
    match protocol:
        case "smtp" if line.startswith("EHLO"):
            return f"250-{name}\r\n250 PIPELINING"
        case "smtp":
            return f"250 {name} {line}"
        case "imap":
            tag, _, command = line.partition(" ")
            return f"{tag} OK {name} {command}"
    return f"+OK {name} {line}"


class Echo:
    """A process that serves each protocol at its address; it can be started again where it was."""

    def __init__(self, name: str) -> None:
        self.name = name
        # Taken but not listened on, so that nobody else gets them while the process is dead.
        self._reserved = {protocol: _reserve() for protocol in GREETINGS}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Echo:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()
        for taken in self._reserved.values():
            taken.close()

    def address(self, protocol: str) -> str:
        host, port = self._reserved[protocol].getsockname()
        return f"{host}:{port}"

    def start(self) -> None:
        """Back when it is ready."""
        assert self._process is None
        command = [sys.executable, "-m", "tests.process.echoing", self.name, *map(self.address, GREETINGS)]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Gone without a word, all its connections with it."""
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait(DEADLINE)
        self._process.stdout.close()
        self._process = None


def _reserve() -> socket.socket:
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", 0))
    return taken


# --- in the process ------------------------------------------------------------------------------------


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256


def _conversation(protocol: str, name: str) -> type[socketserver.StreamRequestHandler]:
    class Conversation(socketserver.StreamRequestHandler):
        disable_nagle_algorithm = True

        def handle(self) -> None:
            self._say(GREETINGS[protocol].format(name=name))
            for line in self.rfile:
                text = line.decode("ascii").rstrip("\r\n")
                self._say(answer(protocol, name, text))
                if text.rpartition(" ")[2] in ("QUIT", "LOGOUT"):
                    break

        def _say(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode("ascii"))

    return Conversation


def main(name: str, *addresses: str) -> None:
    signal.alarm(LIFE)
    for protocol, address in zip(GREETINGS, addresses, strict=True):
        host, _, port = address.rpartition(":")
        server = _Server((host, int(port)), _conversation(protocol, name))
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
