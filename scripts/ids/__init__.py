"""Read evaluation IDs from text, CSV, JSON Lines or Parquet, compressed or not, on disk or in S3."""
