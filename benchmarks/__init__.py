"""How much the gateway costs, beside others that do the same work in the same run."""
