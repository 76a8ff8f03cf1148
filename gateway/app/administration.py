"""The admin listener through start, reload and stop; nothing of it is loaded without `[admin]`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..config.values import Configuration
from ..telemetry.summary import Teller
from .ports import Handed, Port

if TYPE_CHECKING:
    from ..telemetry.admin.site import Office, Subject
    from .admin import AdminListener
    from .control.server import Ask


class Administration:
    """`prepare` and then `use`, or `give_up`; `serve` once, when the gateway serves; at the end `stop`."""

    def __init__(self, events: Teller, handed: Handed | None = None) -> None:
        """`handed`: what another program has handed over."""
        self._events = events
        self._handed = handed or Handed()
        self._listener: AdminListener | None = None
        self._prepared: AdminListener | None = None
        self._token: str | None = None
        """What the file with the token holds now, where the listener stays."""
        self._reactor: Any = None
        self._subject: Subject | None = None
        self._ask: Ask | None = None
        self._configuration: Callable[[], Configuration] | None = None

    def prepare(self, configuration: Configuration) -> None:
        """Bind what the configuration asks for, while that is allowed.  Raises StartError; then nothing has changed."""
        values, hostname, now = configuration.admin, configuration.hostname, self._listener
        if now is not None and (now.values, now.hostname) == (values, hostname):
            self._token = now.read_token()
            self._prepared = now
        elif values is None:
            self._prepared = None
        else:
            # A web server is loaded by those who want one.
            from .admin import AdminListener

            self._prepared = AdminListener(values, hostname, self._events, now, self._handed)

    def give_up(self) -> None:
        """The rest of the configuration cannot be used."""
        if self._prepared is not None and self._prepared is not self._listener:
            self._prepared.stop()
        self._prepared, self._token = self._listener, None

    def serve(self, reactor: Any, subject: Subject, ask: Ask, configuration: Callable[[], Configuration]) -> None:
        """From now on what is used is served; `subject` is what its pages show, `ask` does what they ask for."""
        self._reactor, self._subject, self._ask, self._configuration = reactor, subject, ask, configuration
        self.use()

    def use(self) -> None:
        """What was prepared."""
        if self._subject is None:
            return
        if self._prepared is not self._listener:
            if self._listener is not None:
                self._listener.stop()
            if self._prepared is not None:
                self._prepared.start(self._reactor, self._subject, self._office(self._subject))
            self._listener = self._prepared
        elif self._listener is not None and self._token is not None:
            self._listener.change_token(self._token)
        self._token = None

    def _office(self, subject: Subject) -> Office:
        # Loaded with the web server.
        from .office import Clerk

        assert self._ask is not None and self._configuration is not None
        return Clerk(self._reactor, self._configuration, subject.standing, self._ask, self._events)

    @property
    def ports(self) -> list[Port]:
        """For another program to take over."""
        return [] if self._listener is None else [self._listener.port]

    def stop(self) -> None:
        self.give_up()
        if self._listener is not None:
            self._listener.stop()
            self._listener = self._prepared = None
