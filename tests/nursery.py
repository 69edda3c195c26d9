"""A process that has loaded all modules and forks commands; `tests.forked` starts it and sends it orders."""

import atexit
import gc
import importlib
import json
import os
import runpy
import selectors
import socket
import sys
import threading
from dataclasses import dataclass
from typing import NoReturn

LONGEST_ORDER = 1 << 17
"""Maximum length of an order in bytes."""

BEGUN, ENDED = b"begun", b"ended"
"""Events of a fork: its beginning, with the process ID, and its end, with the exit code."""

_COMMANDS = (
    *("audit.command", "doctor.command", "erase.command", "export.command", "report.command"),
    *("console.error_messages", "serve.server", "verify.command"),
    *("legal_hold.add_command", "legal_hold.create_command", "legal_hold.list_command", "legal_hold.release_command"),
    *("legal_hold.show_command", "quarantine.get_command", "quarantine.list_command", "quarantine.retry_command"),
    *("retention.apply_command", "retention.check_command", "retention.event_command", "retention.plan_command"),
    "retention.status_command",
    *(
        "commands.backfill",
        "commands.dead_letters",
        "commands.demo",
        "commands.enqueue",
        "commands.hold",
        "commands.rate",
    ),
    *("commands.run", "commands.settings", "commands.simulate", "commands.status", "commands.worker"),
)
_LOADED_LATE = (
    *("boto3", "botocore.httpsession", "obstore.auth.boto3", "tasks.archive"),
    *("celery.apps.worker", "celery.concurrency.thread", "celery.worker.consumer", "celery.worker.strategy"),
)


@dataclass(frozen=True)
class Order:
    """A module to run as ``python -m`` does.

    Attributes:
        module: its name.
        arguments: of the command line.
        folder: the working directory.
        environment: all of its variables.
        new_session: whether it leaves our process group, and so gets no signals that are sent to the group.
    """

    module: str
    arguments: list[str]
    folder: str
    environment: dict[str, str]
    new_session: bool


def serve_orders(orders: socket.socket) -> tuple[Order, list[int]] | None:
    """Fork for each order; return the order and its descriptors in a fork, and None after the last order.

    An order comes with four descriptors: one for events of the fork, and its three streams.
    """
    with selectors.DefaultSelector() as selector, orders:
        selector.register(orders, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    selector.unregister(key.fd)
                    _send_exit_code(key.fd, *key.data)
                    continue
                data, descriptors, *_ = socket.recv_fds(orders, LONGEST_ORDER, 4)
                if not data:
                    return None
                child = os.fork()
                if child == 0:
                    return Order(**json.loads(data)), descriptors
                events, *streams = descriptors
                for stream in streams:
                    os.close(stream)
                selector.register(os.pidfd_open(child), selectors.EVENT_READ, (child, events))


def _send_exit_code(pidfd: int, child: int, events: int) -> None:
    """Send the exit code of a child, or the negative number of the signal that ended it."""
    _, status = os.waitpid(child, 0)
    os.close(pidfd)
    with socket.socket(fileno=events) as sender:
        sender.send(b"%s %d" % (ENDED, os.waitstatus_to_exitcode(status)), socket.MSG_NOSIGNAL)


def run_order(order: Order, events: int, *streams: int) -> None:
    """Run the ordered module in this fork, without the state of the nursery."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    if order.new_session:
        os.setsid()
    os.environ.clear()
    os.environ.update(order.environment)
    os.chdir(order.folder)
    del sys.path[0]  # the entry of the nursery; commands import nothing from their working directory
    sys.argv[1:] = order.arguments
    os.write(events, b"%s %d" % (BEGUN, os.getpid()))
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    code: object = 0
    try:
        runpy.run_module(order.module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        code = ended.code or 0
        if not isinstance(code, int):
            raise
    _end(code)


def _end(code: int) -> NoReturn:
    """End this fork as Python does, but without clearing its modules, which would copy the memory of the nursery."""
    threading._shutdown()
    atexit._run_exitfuncs()
    gc.collect()  # reports tasks and coroutines that the command has left behind
    try:
        for stream in (sys.stdout, sys.stderr):
            if not stream.closed:
                stream.flush()
    except OSError:
        sys.exit(code)  # the interpreter reports the failed write
    os._exit(code)


def load() -> None:
    """Import the modules of commands; none may start a thread, since a fork has only this one."""
    for name in (*(f"scripts.{each}" for each in _COMMANDS), *_LOADED_LATE):
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "an import has started a thread"  # noqa: PTH208
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    load()
    if (ordered := serve_orders(socket.socket(fileno=int(sys.argv[1])))) is not None:
        order, descriptors = ordered
        run_order(order, *descriptors)
