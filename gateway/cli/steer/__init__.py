"""Commands for a gateway that runs: they ask at its control socket, and show what it answers."""
