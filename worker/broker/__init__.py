"""Connect Celery to Redis or RabbitMQ, and check message envelopes before Celery opens them."""
