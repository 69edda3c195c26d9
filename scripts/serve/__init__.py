"""The doors for other systems: events of RiskOS, IDs over HTTP, and how the process is."""
