"""A report of S3 Inventory in the place of requests: which objects a bucket had when the report was made."""
