"""The smaller commands, such as `run`, `backfill`, `status` and `hold`."""
