"""Why a model cannot be exported, in one sentence that names the operator or the line."""

import contextlib
from collections.abc import Iterator

from qlearn.system.errors import Refusal, explain


@contextlib.contextmanager
def refusing(target: str) -> Iterator[None]:
    """Turn an exporter's exception into a `Refusal` of one sentence, which names the target.

    A missing file, a full disk and memory that is out stay what they are.
    """
    try:
        yield
    except (Refusal, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's own; TorchScript raises one without a number
        raise Refusal(f"The model cannot be exported to {target}: {explain(error)}.") from error
