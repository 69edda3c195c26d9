"""The same work, done as others would do it; each is a process that reads IDs from its standard input.

They have an environment of their own (`constraints/bench.txt`), since aiobotocore wants another botocore than ours.
"""
