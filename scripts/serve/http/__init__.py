"""Read requests and write responses, with limits on connections, time and size."""
