"""What the quickstart searches for: questions whose hits a person can judge."""

from pgembed.evaluation.dataset import Dataset

# Subjects that any large enough part of the standard library has code for.
_STANDARD_LIBRARY = (
    "read the lines of a compressed file",
    "send a request to a web server and read the answer",
    "convert a date and time to text",
)
_ANYWHERE = ("read a configuration file", "write a message to the log", "check the input and report an error")
_COUNT = 3
_MOST_WORDS = 25


def sample_queries(is_standard_library: bool, datasets: list[Dataset]) -> list[str]:
    """Return three queries: fixed ones for the standard library, else first sentences of held-out docstrings."""
    if is_standard_library:
        return list(_STANDARD_LIBRARY)
    held_out = datasets[0].queries.values() if datasets else ()
    sentences = dict.fromkeys(_first_sentence(text) for text in held_out)
    return [*sentences, *_ANYWHERE][:_COUNT]


def _first_sentence(text: str) -> str:
    paragraph = " ".join(text.split("\n\n", 1)[0].split())
    sentence = paragraph.split(". ", 1)[0]
    return " ".join(sentence.split(" ")[:_MOST_WORDS]).rstrip(".")
