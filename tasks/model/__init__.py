"""Define evaluations, accounts, jobs and outcomes, which all other packages share."""
