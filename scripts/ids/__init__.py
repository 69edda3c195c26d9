"""Evaluation IDs as files name them: text, CSV, JSON lines or Parquet, packed or not, here or in S3."""
