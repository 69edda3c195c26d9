"""Check the credentials and role of a caller, and find the account of a request."""
