"""Other programs that do the same work; most of them read IDs from their standard input.

They have their own environment (`constraints/bench.txt`), since aiobotocore needs another botocore than docv-archive.
"""
