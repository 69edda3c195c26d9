"""Other programs that do the same work; most of them read IDs from their standard input.

They have an environment of their own (`constraints/bench.txt`): aiobotocore needs another botocore than docv-archive.
"""
