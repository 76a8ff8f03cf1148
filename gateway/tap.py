"""The gateway as twistd knows it: the options of its command, and the service that they stand for."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from twisted.application.service import IService
from twisted.python import usage

from . import __version__
from .config import ConfigurationError, load
from .dialects import DIALECTS
from .startup import Startup
from .telemetry.events import FORMATS

# Nothing in here may import the reactor, for `twistd -r` chooses it, nor open a socket, for twistd has not forked yet:
# what does is imported when the service is made.


class Options(usage.Options):
    synopsis = "[--config FILE | --demo]"
    longdesc = "Modern TLS in front of mail servers that have none."
    optFlags = [["demo", None, "Run with three legacy mail servers of its own on 127.0.0.1 and no file at all."]]
    optParameters = [["config", "c", "/etc/starttls-gateway/gateway.ini", "The configuration file."]]

    def opt_version(self) -> None:
        """Show the version of the gateway and exit."""
        print(f"starttls-gateway {__version__}")
        raise SystemExit(0)


def makeService(options: Options) -> IService:
    """Raises SystemExit, after a line on standard error for each problem in the file."""
    runner: Mapping[str, object] = options.parent or {}
    if options["demo"]:
        from . import demo

        startup = Startup(runner, FORMATS["text"])
        demo.make_service(startup.events).setServiceParent(startup)
        return startup
    try:
        configuration = load(options["config"], DIALECTS)
    except ConfigurationError as wrong:
        print(*wrong.problems, sep="\n", file=sys.stderr)
        raise SystemExit(1) from None
    from .service import Gateway

    startup = Startup(runner, FORMATS[configuration.log])
    Gateway(configuration, startup.events).setServiceParent(startup)
    return startup
