"""The exit codes of every command; what each is for stands in `scripts.cli`."""

OK, NOT_ALL, USAGE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130
