"""The program: the twistd plugin, the start, the service, signals and rights."""
