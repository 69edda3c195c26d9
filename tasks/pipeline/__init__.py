"""Archive one leased evaluation: download, unpack, upload, commit the manifest and record the outcome."""
