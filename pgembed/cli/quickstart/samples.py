"""What the quickstart searches for: questions whose hits a person can judge."""

# Subjects that any large enough part of the standard library has code for.
STANDARD_LIBRARY = (
    "read the lines of a compressed file",
    "send a request to a web server and read the answer",
    "convert a date and time to text",
)
ANYWHERE = ("read a configuration file", "write a message to the log", "check the input and report an error")
COUNT = 3
_MOST_WORDS = 25


def sample_queries(descriptions: list[str]) -> list[str]:
    """Return three queries: the first sentences of `descriptions`, and where these are too few, everyday ones."""
    sentences = dict.fromkeys(map(_first_sentence, descriptions))
    return [*sentences, *ANYWHERE][:COUNT]


def _first_sentence(text: str) -> str:
    sentence = " ".join(text.split()).split(". ", 1)[0]
    return " ".join(sentence.split(" ")[:_MOST_WORDS]).rstrip(".")
