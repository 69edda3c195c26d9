"""Look up evaluations in the archive or in an S3 Inventory report, and report which are missing."""
