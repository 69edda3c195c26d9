"""Run Redis and a worker on this machine for the duration of a command."""
