"""Which Python this is, how it was built, and what it has of that which the gateway needs, as JSON.

Run by the Python that is asked: `python -m benchmarks.interpreter`.
"""

from __future__ import annotations

import json
import platform
import re
import sys
import sysconfig

_FASTER = ("--enable-optimizations", "--with-lto", "--enable-experimental-jit")
_SLOWER = ("--enable-shared", "--disable-gil", "--with-pydebug")


def build(arguments: str, base_prefix: str, system: str) -> str:
    """What `configure` was told of that which counts; half of a session's cost is the interpreter's."""
    given = re.findall(r"(?:'|\A|\s)(--[\w-]+)", arguments)
    told = [word for word in (*_FASTER, *_SLOWER) if word in given]
    if base_prefix == "/usr" and not set(_FASTER) & set(given):
        # Debian optimises by other means than these options, and does not tell in sysconfig.
        return ", ".join([f"as {system} builds it", *told])
    missing = [f"no {word}" for word in _FASTER[:2] if word not in given]
    return ", ".join([*told, *missing])


def _system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "the system"


def main() -> None:
    from OpenSSL import SSL

    import twisted

    arguments = str(sysconfig.get_config_var("CONFIG_ARGS") or "")
    about = {
        "python": f"Python {platform.python_version()} ({build(arguments, sys.base_prefix, _system())})",
        "openssl": SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode().split()[1],
        "twisted": twisted.__version__,
    }
    print(json.dumps(about))


if __name__ == "__main__":
    main()
