"""A real browser without a window, driven through two pipes by the DevTools protocol: no driver, no websocket."""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

DEADLINE = 30.0

Message = dict[str, Any]


class Browser:
    """Messages are JSON with a NUL behind each (--remote-debugging-pipe)."""

    def __init__(self, say: int, hear: int) -> None:
        """Descriptors of the pipes to it and from it."""
        self._say = say
        self._hear = hear
        self._octets = b""
        self._last = 0
        self.events: list[Message] = []
        """All that the browser told without being asked."""

    def ask(self, method: str, session: str = "", **params: Any) -> Message:
        """The result of a command."""
        self._last += 1
        request = {"id": self._last, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self._say, json.dumps(request).encode() + b"\0")
        number = self._last
        answer = self._until(lambda message: message.get("id") == number)
        assert "error" not in answer, f"{method}: {answer['error']}"
        result: Message = answer["result"]
        return result

    def wait(self, session: str, method: str, holds: Callable[[Message], bool]) -> Message:
        """The parameters of an event that came, or comes."""

        def is_meant(message: Message) -> bool:
            return (message.get("method"), message.get("sessionId")) == (method, session) and holds(message["params"])

        found = next(filter(is_meant, self.events), None) or self._until(is_meant)
        return dict(found["params"])

    def _until(self, wanted: Callable[[Message], bool]) -> Message:
        until = time.monotonic() + DEADLINE
        while True:
            while b"\0" in self._octets:
                octets, _, self._octets = self._octets.partition(b"\0")
                message: Message = json.loads(octets)
                if "method" in message:
                    self.events.append(message)
                if wanted(message):
                    return message
            readable, _, _ = select.select([self._hear], [], [], max(0.0, until - time.monotonic()))
            assert readable, "the browser does not answer"
            more = os.read(self._hear, 1 << 20)
            assert more, "the browser is gone"
            self._octets += more


class Page:
    """A tab of its own, as wide and as dark as wanted."""

    def __init__(
        self,
        browser: Browser,
        url: str,
        width: int = 1200,
        dark: bool = False,
        *,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._browser = browser
        context = browser.ask("Target.createBrowserContext")["browserContextId"]
        target = browser.ask("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        self.session: str = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")
        self.ask("Network.setExtraHTTPHeaders", headers=dict(headers))
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=scheme)
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.ask("Page.navigate", url=url)
        self.wait("Page.loadEventFired")

    def ask(self, method: str, **params: Any) -> Message:
        return self._browser.ask(method, self.session, **params)

    def wait(self, method: str, holds: Callable[[Message], bool] = lambda params: True) -> Message:
        return self._browser.wait(self.session, method, holds)

    def run(self, script: str) -> Any:
        """What an expression gives, of a promise what it promises."""
        told = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def shoot(self, file: Path) -> None:
        """The whole page as an image."""
        told = self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(told["data"]))

    @property
    def complaints(self) -> list[str]:
        """Errors and warnings of the console, of scripts, and of the policy."""
        mine = [one for one in self._browser.events if one.get("sessionId") == self.session]
        found = []
        for event in mine:
            match event:
                case {"method": "Runtime.exceptionThrown", "params": params}:
                    found.append(str(params["exceptionDetails"]))
                case {"method": "Runtime.consoleAPICalled", "params": {"type": "error" | "warning"} as params}:
                    found.append(str(params["args"]))
                case {"method": "Log.entryAdded", "params": {"entry": {"level": "error" | "warning"} as entry}}:
                    found.append(str(entry))
                case {"method": "Page.javascriptDialogOpening", "params": params}:
                    found.append(f"dialog: {params['message']}")
        return found


@contextmanager
def browser(program: str) -> Iterator[Browser]:
    with TemporaryDirectory(prefix="gateway-browser-", ignore_cleanup_errors=True) as profile:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        process = subprocess.Popen(
            [
                "bash", "-c", f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}',
                program, "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu",
                "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
                "--disable-component-update", f"--user-data-dir={profile}",
            ],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        made = Browser(ours_out, ours_in)
        try:
            yield made
            made.ask("Browser.close")
            process.wait(DEADLINE)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            os.close(ours_out)
            os.close(ours_in)
