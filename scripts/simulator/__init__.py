"""A RiskOS of our own: it answers as the real one does, and fails as the real one may."""
