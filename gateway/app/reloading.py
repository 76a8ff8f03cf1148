"""A reload: the whole new file is used, or nothing of it.  The same code for one process and for several.

First all parts are prepared: everything that can fail, fails there.  Then all parts are used, or all are given up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from ..config.errors import ConfigurationError, StartError
from ..config.values import Configuration
from ..records import dataclass
from ..telemetry.summary import Teller
from .administration import Administration
from .desk import Desk
from .plan import Reload, changes
from .source import Source
from .telling import tell_reload

if TYPE_CHECKING:
    from .program import Program


@dataclass(frozen=True, slots=True)
class Transition:
    """From the configuration that is in use to the next one, prepared."""

    opened: Sequence[str]
    """Addresses that will be listened on."""
    closed: Sequence[str]
    """Addresses that will not be listened on any more."""
    use: Callable[[], None]
    """Use the new configuration.  It fails for no reason that lies in the file."""


class Reloader:
    def __init__(
        self,
        gateway: Program,
        source: Source | None,
        desk: Desk,
        administration: Administration,
        events: Teller,
    ) -> None:
        """`source`: the file, if there is one."""
        self._gateway = gateway
        self.source = source
        self._desk = desk
        self._administration = administration
        self._events = events
        self.last: Reload | None = None
        """What became of the last reload."""

    @property
    def file(self) -> str | None:
        """The configuration file's path."""
        return None if self.source is None else self.source.path

    @property
    def was_refused(self) -> bool:
        """Whether the last reload was."""
        return self.last is not None and not self.last.good

    def reload(self) -> Reload:
        """Read the file again and use it: all of it, or nothing where anything in it cannot be used.

        Renewed certificates are served in both cases.  A certificate that is bad now is served as it was.
        """
        self._desk.reloading()
        self._gateway.look_at_certificates()
        outcome = self.last = self._attempt()
        tell_reload(outcome, self._events)
        if self._gateway.running:
            self._desk.reloaded()
        return outcome

    def _attempt(self) -> Reload:
        now = datetime.now(timezone.utc)
        if self.source is None:
            return Reload(now, problems=("there is no configuration file to be read",))
        file, before = self.source.path, self._gateway.configuration
        if not self._gateway.running:
            return Reload(now, file, ("the gateway is about to stop",))
        try:
            configuration = self.source.again(self._gateway.files)
            transition = self._prepare(configuration)
        except ConfigurationError as wrong:
            return Reload(now, file, tuple(wrong.problems))
        except StartError as wrong:
            return Reload(now, file, (f"{file}: {wrong}",))
        transition.use()
        self._administration.use()
        self._desk.use()
        return Reload(
            now,
            file,
            changes=changes(before, configuration),
            opened=tuple(transition.opened),
            closed=tuple(transition.closed),
            warnings=tuple(self._gateway.refused_certificates),
        )

    def _prepare(self, configuration: Configuration) -> Transition:
        """Raises StartError; then everything is as it was."""
        now, wanted = self._gateway.configuration.workers, configuration.workers
        if wanted != now:
            raise StartError(
                f"[gateway] workers = {wanted}: a reload cannot change it, and {now} is in use; run `starttls-gateway "
                "upgrade`, which loses no session, or restart the gateway"
            )
        with ExitStack() as given_up:
            given_up.callback(self._desk.give_up)
            self._desk.prepare(configuration.control)
            given_up.callback(self._administration.give_up)
            self._administration.prepare(configuration)
            transition = self._gateway.prepare(configuration)
            given_up.pop_all()
        return transition
