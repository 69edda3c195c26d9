"""Serve the webhook, the HTTP API, the operations page, health and metrics."""
