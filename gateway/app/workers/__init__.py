"""Several processes: a master that binds and tells, workers that serve, and a template that workers are forked from."""
