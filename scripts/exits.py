"""What went wrong, as one sentence and an exit code."""

from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from tasks.errors import BadInput
from worker.embedded import EmbeddedError
from worker.redis_client import is_full
from worker.settings import SettingsError
from worker.unreachable import Unreachable

OK, NOT_ALL, USAGE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130


def explain(error: Exception) -> tuple[str, int] | None:
    """Return the sentence and the exit code for an error, or None for one that nobody foresaw."""
    match error:
        case SettingsError() | BadInput():
            return str(error), USAGE
        case Unreachable() | EmbeddedError():
            return str(error), UNREACHABLE
        case RedisError() | KombuError() if is_full(error):
            sentence = (
                "Redis is full: nothing more is accepted until workers have made room; what was accepted before is "
                "safe, and the same command accepts the rest later"
            )
            return sentence, UNREACHABLE
        case KombuError():
            sentence = (
                f"what carries the messages does not do what it was asked ({type(error).__name__}); what was accepted "
                "before is safe, and comes to its queue when it does: see that Redis runs, or RabbitMQ where "
                "DOCV_BROKER_URL names one, and give the same command again"
            )
            return sentence, UNREACHABLE
        case RedisError():
            sentence = (
                f"Redis does not do what it was asked ({type(error).__name__}); what was accepted before is safe: "
                "see that it runs, and give the same command again"
            )
            return sentence, UNREACHABLE
    return None
