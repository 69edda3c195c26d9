"""Terminal support for all commands: formatting, summaries, progress, error messages, exit codes and interrupts."""
