"""Read evaluation IDs from text, CSV, JSON lines or Parquet, compressed or not, on disk or in S3."""
