"""Accept evaluations into the ledger, and publish them to the Celery queues."""
