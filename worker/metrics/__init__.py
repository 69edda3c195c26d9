"""Define the Prometheus metrics of a worker, and serve them over HTTP together with its health."""
