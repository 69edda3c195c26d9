"""Open the clients of Redis and the archive, check both services, and run an embedded Redis if none is configured."""
