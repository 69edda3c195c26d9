"""The process: what is opened once and lives as long as it does."""
