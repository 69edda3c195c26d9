"""The worker process: settings, service clients, the Celery application, metrics, logs and graceful shutdown."""
