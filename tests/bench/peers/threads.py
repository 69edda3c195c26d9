"""Archive evaluations in threads with requests, zipfile and boto3."""

from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore

from tests.bench.peers.blocking import Archiver
from tests.bench.peers.place import eval_ids

_THREADS = 16


def main() -> None:
    """Archive evaluations, several at a time."""
    archiver, slots = Archiver(_THREADS), Semaphore(_THREADS * 2)
    with ThreadPoolExecutor(_THREADS) as pool:
        for eval_id in eval_ids():
            slots.acquire()
            pool.submit(archiver.archive, eval_id).add_done_callback(lambda _: slots.release())


if __name__ == "__main__":
    main()
