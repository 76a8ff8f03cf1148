"""The control socket: what an administrator asks of a gateway that runs."""
