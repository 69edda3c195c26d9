"""Check settings, RiskOS, Redis, RabbitMQ, the archive and disk space, and say how to fix what is wrong."""
