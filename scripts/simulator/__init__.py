"""Simulate RiskOS with its rate limits and failures, for tests, demos and rehearsals."""
