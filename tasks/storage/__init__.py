"""Read and write the archive in S3 or a folder: objects, encryption, manifests and run lists."""
