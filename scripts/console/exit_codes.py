"""The exit codes of every command.

0: success, 1: something is missing or needs attention, 2: wrong usage or settings, 3: a needed service cannot be
reached, 130: interrupted.
"""

OK, NOT_ALL, USAGE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130
