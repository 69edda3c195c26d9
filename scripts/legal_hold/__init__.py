"""Put evaluations under legal holds, each of which is a named matter, and release them."""
