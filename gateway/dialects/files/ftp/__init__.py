"""FTP (RFC 959, RFC 2228, RFC 2428, RFC 4217): `words` are pure functions, `exchange` is the backend's side, `data` are
the commands about data connections.
"""

from .commands import DIALECT as DIALECT
