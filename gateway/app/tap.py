"""The gateway as twistd knows it: the options of its command, and the service that they stand for."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping
from typing import Any

from twisted.application.service import IService
from twisted.python import usage

from .. import __version__
from ..config import DEFAULT_FILE, ConfigurationError
from ..config.values import Configuration
from ..telemetry.events import FORMATS
from .handover import Inheritance, Predecessor, succeed
from .rights import complaint, gid_of, uid_of
from .signals import Signals
from .source import Source
from .startup import Startup

# This module must not import the reactor: `twistd -r` chooses it later.  It must not open a socket: twistd has not
# forked yet.  Modules that do either are imported when the service is made.


class Options(usage.Options):
    synopsis = "[--config FILE | --demo]"
    longdesc = "Modern TLS in front of old servers."
    optFlags = [["demo", None, "Run with three legacy mail servers of its own on 127.0.0.1 and no file at all."]]
    optParameters = [
        ["config", "c", DEFAULT_FILE, "The configuration file."],
        ["uid", None, None, "The user to run as, once ports are bound and keys are read."],
        ["gid", None, None, "The group to run as; by default, the user's own."],
    ]

    def postOptions(self) -> None:
        """Whatever twistd would do with --uid, --gid and --pidfile, it is wrong here in one line.

        Raises SystemExit: a UsageError would be lost behind a hundred lines of help.
        """
        twistd: dict[str, Any] | None = self.parent
        self.pidfile: str | None = None
        self.predecessor = Predecessor.found(os.environ)
        try:
            if twistd is None or "uid" not in twistd:
                if self["uid"] or self["gid"]:
                    raise ValueError("--uid and --gid need twistd as the runner")
                return
            if self["uid"]:
                twistd["uid"] = uid_of(self["uid"])
            if self["gid"]:
                twistd["gid"] = gid_of(self["gid"])
            if self.predecessor is not None:
                self.pidfile = succeed(twistd)
            if wrong := complaint(twistd):
                raise ValueError(wrong)
        except ValueError as wrong:
            raise SystemExit(f"starttls-gateway: {wrong}") from None

    def opt_version(self) -> None:
        """Show the version of the gateway and exit."""
        print(f"starttls-gateway {__version__}")
        raise SystemExit(0)


def makeService(options: Options) -> IService:
    """Raises SystemExit, after a line on standard error for each problem in the file."""
    # What Twisted has loaded stays: the garbage collections of the start need not look through it.
    gc.freeze()
    signals = Signals()
    runner: dict[str, Any] = options.parent if options.parent is not None else {}
    if options["demo"]:
        from .. import demo

        startup = Startup(runner, FORMATS["text"], signals)
        demo.Demo(startup.events).setServiceParent(startup)
        return startup
    chroot = runner.get("chroot")
    source = Source(options["config"], str(chroot) if chroot else None)
    try:
        configuration = source.first()
    except ConfigurationError as wrong:
        print(*wrong.problems, sep="\n", file=sys.stderr)
        raise SystemExit(1) from None
    inheritance = None if options.predecessor is None else options.predecessor.inherit()
    startup = Startup(runner, FORMATS[configuration.log], signals, options.predecessor, options.pidfile)
    _service(configuration, source, startup, runner, inheritance).setServiceParent(startup)
    return startup


def _service(
    configuration: Configuration,
    source: Source,
    startup: Startup,
    runner: Mapping[str, Any],
    inheritance: Inheritance | None,
) -> IService:
    from .desk import Desk
    from .plan import openings
    from .store import found

    uid = runner.get("uid")
    desk = Desk(startup.events, uid if isinstance(uid, int) else None, startup.upgrade, inheritance, startup.elders)
    # What systemd has kept of a gateway that ended, if none hands over.
    sockets = inheritance or found({str(one.address) for one in openings(configuration)})
    if configuration.workers == 1:
        from .service import Gateway

        return Gateway(configuration, startup.events, source=source, desk=desk, inheritance=sockets)
    from .workers.master import Master

    log, check = startup.log_descriptor, startup.check
    return Master(configuration, startup.events, source, runner, log, check, desk, sockets)
