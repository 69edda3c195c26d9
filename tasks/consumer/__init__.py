"""Work on evaluations in a worker process, with limits on concurrency and a fair share for each account."""
