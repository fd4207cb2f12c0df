"""What `pgembed eval` measures of a generation beside its encoder: searches through its index."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pgembed.progress import Progress

if TYPE_CHECKING:
    import psycopg

    from pgembed.encoders.onnx_encoder import OnnxEncoder
    from pgembed.evaluation.dataset import Dataset
    from pgembed.evaluation.store import Evaluation
    from pgembed.vectors.generations import Generation


def measure_index(
    conn: "psycopg.Connection",
    generation: "Generation",
    encoder: "OnnxEncoder",
    datasets: "Sequence[Dataset]",
    evaluations: "Sequence[Evaluation]",
    *,
    again: bool,
    progress: Progress,
) -> "list[Evaluation]":
    """Search the generation for the queries of each data set, and return the evaluations with what came out.

    What was measured of the index as it is now is kept, unless `again` is set. Data sets with the same queries, such as
    with names masked and without, share one measurement. A generation that cannot be searched yet is left out.
    """
    from pgembed.db.connection import register_vectors
    from pgembed.evaluation.store import note_index
    from pgembed.vectors.measuring import SearchMeasure, measure_search

    if not generation.attached or not generation.row_count:
        return list(evaluations)
    register_vectors(conn)
    measured: dict[frozenset[str], dict[str, float]] = {}
    noted = []
    for dataset, evaluation in zip(datasets, evaluations, strict=True):
        asked = frozenset(dataset.queries.values())
        known = evaluation.of_index(generation.id)
        if known is not None and not again and SearchMeasure.is_of(generation, known):
            measured[asked] = known
            noted.append(evaluation)
            continue
        if asked not in measured:
            progress.say(
                f"Searching generation {generation.id} for {len(dataset.queries):,} queries through its index."
            )
            queries = encoder.embed(list(dataset.queries.values()), role="query")
            measured[asked] = measure_search(conn, generation, queries).to_metrics()
        noted.append(note_index(conn, evaluation, generation.id, measured[asked]))
    return noted
