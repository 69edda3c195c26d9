"""Request an evaluation's bundle from RiskOS and interpret the response."""
