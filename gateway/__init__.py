"""A STARTTLS gateway: modern TLS in front of old servers."""

try:
    # Written from the git tag when the package is built or installed.
    from ._version import __version__ as __version__  # type: ignore[import-not-found,unused-ignore]
except ImportError:
    # A checkout that was never installed.
    __version__ = "0+unknown"
