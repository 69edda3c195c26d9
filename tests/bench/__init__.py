"""What it costs, measured: by commands that stay in the repository, side by side."""
