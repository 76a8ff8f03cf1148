"""ManageSieve (RFC 5804): `syntax` has pure functions, `exchange` is the backend's side, `commands` the client's."""

from .commands import DIALECT as DIALECT
