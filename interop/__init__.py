"""Real clients and real servers, each through the gateway: `make interop`."""
