"""Open the archive for a command, and read evaluations, their revisions and S3 properties from it."""
