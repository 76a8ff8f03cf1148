"""The `starttls-gateway` command of twistd."""

from twisted.application.service import ServiceMaker

# An import error in here is only logged and the command vanishes from `twistd --help`: so nothing else is imported.
starttls_gateway = ServiceMaker(
    "starttls-gateway",
    "gateway.app.tap",
    "Modern TLS in front of mail servers that have none.",
    "starttls-gateway",
)
