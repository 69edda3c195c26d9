"""Read and validate the settings of the process and of each account."""
