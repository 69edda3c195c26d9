"""The exit codes of every command.

0: all as asked, 1: some evaluation is not, 2: usage or settings, 3: a needed service cannot be reached,
130: interrupted.
"""

OK, NOT_ALL, USAGE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130
