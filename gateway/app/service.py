"""The assembled gateway: what a configuration says, listening, serving and stopping."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

from twisted.internet.defer import Deferred

from ..config.values import Configuration
from ..guard.limits import Ledger
from ..sessions.agreed import channels_each
from .assembly import Assembly
from .reloading import Transition
from .serving import Serving
from .telling import tell_unused


class Gateway(Serving):
    """Binds its ports and reads its keys while still privileged, serves afterwards.

    The Deferred of `stopService` fires when the last session has ended, `drain` seconds after the stop at the latest.
    """

    # --- reload ------------------------------------------------------------------------------

    def prepare(self, configuration: Configuration) -> Transition:
        """Raises StartError; then nothing has changed."""
        before = self.assembly
        assembly = self._assembler.assemble(configuration, before)
        return Transition(
            [address for door in assembly.opened for address in door.addresses],
            [address for door in assembly.closed for address in door.addresses],
            partial(self._use, assembly, before),
        )

    def _use(self, assembly: Assembly, before: Assembly) -> None:
        """Nothing in here can fail for a reason that lies in the file."""
        configuration = assembly.configuration
        self._follow(assembly, before)
        for door in assembly.closed:
            door.retire()
        assembly.use()
        for door in assembly.opened:
            self._open(door)
        self.crowd.limit(configuration.limits, channels_each(configuration))
        self.crowd.probes = configuration.probes
        self._keep(assembly)
        self._renewal.tell_together()
        tell_unused(configuration, self._events)

    # --- one of several workers --------------------------------------------------------------

    def settle(self, worker: int, workers: int, ledger: Ledger) -> None:
        """Before the start: which worker this is, of how many, and where limits are counted for all of them."""
        self._seat = (worker, workers)
        self._ledger = ledger

    def use(self, configuration: Configuration) -> None:
        """Another configuration, which the master has read.  Raises StartError; then nothing has changed."""
        before = self.assembly
        assembly = self._assembler.assemble(configuration, before)
        if self.running:
            self._use(assembly, before)
        else:
            self._keep(assembly)
            assembly.use()
            for door in assembly.closed:
                door.port.close()

    def look_at_certificates(self) -> None:
        """Now, and tell what is refused."""
        self._tell_unreadable()
        # A bad pair is logged at the second look, because its two files are written one after the other.
        self._renewal.look()
        self._renewal.look()

    def look(self) -> None:
        """Whether certificates have changed."""
        self._renewal.look()

    def close_doors(self, elsewhere: Collection[str] | None = None) -> None:
        """Nobody can connect here any more.  Sessions go on.

        `elsewhere`: addresses that another program serves now, if it says so: whoever waits at others is let in first.
        """
        for door, _, _ in self.assembly.doors:
            if elsewhere is None:
                door.close()
            else:
                door.retire(elsewhere)

    # --- another program takes over ----------------------------------------------------------

    def hand_over(self, then: Callable[[], None], elsewhere: Collection[str] | None) -> None:
        self._patience = self._configuration.old_sessions
        self.close_doors(elsewhere)
        self._administration.stop()
        if self._shares is None:
            self._desk.close(handed_over=True)
            self._acting.end()
        then()

    def lose_patience(self) -> None:
        self._ending.lose_patience(self._configuration.drain)

    # --- stop --------------------------------------------------------------------------------

    def stopService(self) -> Deferred[None] | None:
        super().stopService()
        self.close_doors()
        for watch in self._watches(self.assembly):
            watch.stop()
        self.crowd.drop_held()
        stopped = self._ending.begin(self._configuration.drain, self._patience)
        if self._shares is None:
            self._desk.stopping()
        if stopped is None:
            self._finish()
            return None
        return stopped.addCallback(self._finish)

    def hurry(self) -> None:
        self._ending.hurry()

    def _finish(self, _: None = None) -> None:
        self.observer.stop()
        self._end()
