"""The command line and everything it runs, including the HTTP server and a RiskOS simulator."""
