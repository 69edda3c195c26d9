"""A process that has everything loaded and forks commands; `tests.forked` starts it and speaks with it."""

import gc
import importlib
import json
import os
import runpy
import selectors
import socket
import sys
from dataclasses import dataclass

LONGEST_ORDER = 1 << 17
"""Most bytes of an order."""

BEGUN, ENDED = b"begun", b"ended"
"""Told of a fork, with a figure: its process ID when it has become what was ordered, and at last its exit code."""

_COMMANDS = (
    *("audit.command", "doctor.command", "erase.command", "erase.legal_hold", "export.command", "report.command"),
    *("console.error_messages", "serve.server", "verify.command"),
    *(
        "commands.backfill",
        "commands.dead_letters",
        "commands.demo",
        "commands.enqueue",
        "commands.hold",
        "commands.rate",
    ),
    *("commands.run", "commands.simulate", "commands.status", "commands.worker"),
)
_LOADED_LATE = (
    *("boto3", "botocore.httpsession", "obstore.auth.boto3", "tasks.archive"),
    *("celery.apps.worker", "celery.concurrency.thread", "celery.worker.consumer", "celery.worker.strategy"),
)


@dataclass(frozen=True)
class Order:
    """What is to be started, as ``python -m`` does.

    Attributes:
        module: its name.
        arguments: what it is given.
        folder: where it works.
        environment: all of its variables.
        new_session: whether it is out of reach of what is sent to our group.
    """

    module: str
    arguments: list[str]
    folder: str
    environment: dict[str, str]
    new_session: bool


def nurse(orders: socket.socket) -> tuple[Order, list[int]] | None:
    """Fork for each order; return the order and its descriptors in the fork, None when nobody is left to give one.

    With an order come four descriptors: one to tell of the fork on, and its three streams.
    """
    with selectors.DefaultSelector() as selector, orders:
        selector.register(orders, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    selector.unregister(key.fd)
                    _tell_end(key.fd, *key.data)
                    continue
                data, descriptors, *_ = socket.recv_fds(orders, LONGEST_ORDER, 4)
                if not data:
                    return None
                child = os.fork()
                if child == 0:
                    return Order(**json.loads(data)), descriptors
                teller, *streams = descriptors
                for stream in streams:
                    os.close(stream)
                selector.register(os.pidfd_open(child), selectors.EVENT_READ, (child, teller))


def _tell_end(pidfd: int, child: int, teller: int) -> None:
    """Tell the exit code of a child, or with a minus the signal that ended it."""
    _, status = os.waitpid(child, 0)
    os.close(pidfd)
    with socket.socket(fileno=teller) as telling:
        telling.send(b"%s %d" % (ENDED, os.waitstatus_to_exitcode(status)), socket.MSG_NOSIGNAL)


def become(order: Order, teller: int, *streams: int) -> None:
    """Be what was ordered, and nothing of the nursery any more."""
    for place, stream in enumerate(streams):
        os.dup2(stream, place)
    if order.new_session:
        os.setsid()
    os.environ.clear()
    os.environ.update(order.environment)
    os.chdir(order.folder)
    sys.path[0] = order.folder
    sys.argv[1:] = order.arguments
    os.write(teller, b"%s %d" % (BEGUN, os.getpid()))
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    runpy.run_module(order.module, run_name="__main__", alter_sys=True)


def load() -> None:
    """Load what commands do; none of it may have begun to do anything, for only this thread is forked."""
    for name in (*(f"scripts.{each}" for each in _COMMANDS), *_LOADED_LATE):
        importlib.import_module(name)
    assert len(os.listdir("/proc/self/task")) == 1, "what is loaded has started a thread"  # noqa: PTH208
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    load()
    if (ordered := nurse(socket.socket(fileno=int(sys.argv[1])))) is not None:
        order, descriptors = ordered
        become(order, *descriptors)
