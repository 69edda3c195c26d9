"""Accept webhook events and evaluation IDs over HTTP, and report on evaluations and health."""
