"""Decide whether and when to send a request: rate limits, holds, circuit breakers and retries."""
