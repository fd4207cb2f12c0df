"""`pgembed eval`: how well an encoder finds code, and whether another finds it better."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pgembed.cli.common import (
    DsnOption,
    JsonOption,
    connection,
    console,
    print_json,
    printable,
    require_folder_of,
    show_progress,
)
from pgembed.cli.eval_tables import GATE_METRIC, show, show_comparison, show_index, show_languages, verdict

if TYPE_CHECKING:
    import psycopg

    from pgembed.encoders.onnx_encoder import OnnxEncoder
    from pgembed.evaluation.dataset import Dataset
    from pgembed.evaluation.evaluate import Mode
    from pgembed.evaluation.held_out import HeldOut
    from pgembed.evaluation.store import Comparison, Evaluation
    from pgembed.vectors.generations import Generation


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("eval")(evaluate)


@dataclass(frozen=True)
class _Subject:
    """What is evaluated: a name to show, how to load its encoder, and the generation, where it is one."""

    name: str
    load: "Callable[[], OnnxEncoder | None]"
    generation: "Generation | None" = None


def evaluate(
    generation: Annotated[
        int | None, typer.Option("--generation", metavar="ID", help="The encoder of this generation, not the active.")
    ] = None,
    artefact: Annotated[
        Path | None,
        typer.Option("--artefact", metavar="DIR", exists=True, file_okay=False, help="Folder of an exported encoder."),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", metavar="NAME", help="Name of an exported encoder; the newest so named.")
    ] = None,
    dataset: Annotated[
        list[Path] | None,
        typer.Option(
            "--dataset", metavar="DIR", help="A data set in BEIR's layout instead of held-out code; repeatable."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="test or validation of the held-out code (default test); or the file in qrels/."),
    ] = None,
    max_documents: Annotated[
        int, typer.Option("--max-documents", min=1, max=10**9, help="Held-out bodies to search in.")
    ] = 2000,
    max_queries: Annotated[
        int, typer.Option("--max-queries", min=1, max=10**9, help="Held-out docstrings to search by.")
    ] = 500,
    mask_names: Annotated[
        bool, typer.Option("--mask-names", help="Beside it, the same with each function's name masked in its body.")
    ] = False,
    fill: Annotated[
        bool, typer.Option("--fill", help="Fill up to --max-documents with code of the other splits.")
    ] = False,
    compare: Annotated[
        tuple[int, int] | None,
        typer.Option("--compare", metavar="A B", help="Generation B against A, by a paired test."),
    ] = None,
    gate: Annotated[
        bool,
        typer.Option("--gate", help="Compare with the active generation; exit 1 when worse beyond the interval."),
    ] = False,
    tune_weights: Annotated[
        bool,
        typer.Option("--tune-weights", help="Of an encoder of two towers: the weights that find most, on validation."),
    ] = False,
    mode: Annotated[
        Literal["vector", "lexical", "hybrid"],
        typer.Option("--mode", help="Search by meaning, by words (no encoder is needed), or by both fused."),
    ] = "vector",
    tune_fusion: Annotated[
        bool,
        typer.Option("--tune-fusion", help="Try how both are best fused, on the validation split; --apply stores it."),
    ] = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="With --tune-fusion: write the best into pgembed.search_settings.")
    ] = False,
    no_index: Annotated[
        bool, typer.Option("--no-index", help="Leave out the recall and the milliseconds of a generation's index.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="FILE.html", help="Write all of it, with names masked beside, as one HTML file."
        ),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Measure again what was measured before.")] = False,
    dsn: DsnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure search: held-out docstrings, and the bodies that they were cut from, or a data set from outside.

    Shows the mean of each metric with its 95% bootstrap interval, by language where there are several, and of a
    generation what searches through its index find and take; stores all of it in pgembed.evaluations.

    \b
    Examples:
        pgembed eval
        pgembed eval --mask-names
        pgembed eval --dataset ./my-benchmark --artefact ./models/minilm
        pgembed eval --compare 1 2
        pgembed eval --generation 2 --gate --json
        pgembed eval --compare 1 2 --report comparison.html
        pgembed eval --mode hybrid
        pgembed eval --tune-fusion
        pgembed eval --encoder qodo-jina --tune-weights
    """
    if sum(given is not None for given in (generation, artefact, encoder, compare)) > 1:
        raise typer.BadParameter("Give one of --generation, --artefact, --encoder and --compare.")
    if gate and generation is None and artefact is None and encoder is None:
        raise typer.BadParameter("--gate needs the candidate: --generation, --artefact or --encoder.")
    if tune_weights and (gate or compare is not None):
        raise typer.BadParameter("--tune-weights goes with neither --gate nor --compare.")
    if mode == "lexical" and not tune_fusion and any((generation, artefact, encoder, compare, gate)):
        raise typer.BadParameter("--mode lexical has no encoder: leave out what names one, and --gate.")
    if apply and not tune_fusion:
        raise typer.BadParameter("--apply goes with --tune-fusion.")
    if tune_fusion and (compare is not None or gate or tune_weights):
        raise typer.BadParameter("--tune-fusion goes with none of --gate, --compare and --tune-weights.")
    if report is not None and (tune_fusion or tune_weights):
        raise typer.BadParameter("--report goes with neither --tune-weights nor --tune-fusion.")
    if report is not None:
        require_folder_of(report)
    if not dataset and split not in (None, "test", "validation"):
        raise typer.BadParameter("--split of held-out code is test or validation.")

    from pgembed.cli.eval_fusion import tune_both
    from pgembed.cli.eval_weights import tune
    from pgembed.config import settings
    from pgembed.evaluation.held_out import HeldOut, Split
    from pgembed.evaluation.store import compare_evaluations
    from pgembed.vectors.artefacts import choose_artefact

    with connection(dsn, access="session") as conn:
        if encoder is not None:
            artefact = choose_artefact(conn, settings().models_dir, encoder)
        words_alone = mode == "lexical" and not (tune_fusion or tune_weights)
        subjects = (
            [_Subject("words alone", lambda: None)]
            if words_alone
            else _subjects(conn, generation, artefact, compare, gate)
        )
        # weights are chosen where nothing is measured afterwards
        chosen_split = split or ("validation" if tune_weights or tune_fusion else "test")
        of_code: Split = "validation" if chosen_split == "validation" else "test"
        held_out = HeldOut(of_code, max_documents, max_queries, False, fill)
        datasets = list(_datasets(conn, dataset, split, held_out, mask_names or report is not None))
        judged = len(datasets) if mask_names or dataset else 1  # the gate goes by what was asked for
        if tune_weights or tune_fusion:
            chosen = subjects[0].load()
            assert chosen is not None  # noqa: S101 - only the words alone have no encoder
            if tune_weights:
                tune(chosen, datasets, as_json=as_json)
            else:
                tune_both(conn, chosen, datasets, apply=apply, as_json=as_json)
            return
        measured = not no_index and mode != "lexical"
        found = [_evaluate_all(conn, subject, datasets, mode, again, measured) for subject in subjects]
        comparisons = [compare_evaluations(*pair) for pair in zip(*found, strict=True)] if len(found) == 2 else []
        passed = not any(comparison.tests[GATE_METRIC].worse for comparison in comparisons[:judged])
        said = verdict(comparisons[:judged], subjects[0].name, subjects[-1].name) if gate else None
        if report is not None:
            _report(conn, report, datasets, list(zip(subjects, found, strict=True)), comparisons, said)
    if as_json:
        document: dict[str, Any] = (
            {"comparisons": [comparison.to_json() for comparison in comparisons]}
            if comparisons
            else {"evaluations": [evaluation.to_json() for evaluation in found[0]]}
        )
        print_json({**document, "passed": passed, "verdict": said} if gate else document)
    elif comparisons:
        for comparison in comparisons:
            show_comparison(comparison, subjects[0].name, subjects[1].name)
        show_languages([(subject.name, one) for subject, one in zip(subjects, found, strict=True)])
    else:
        show(found[0], subjects[0].name)
    if not as_json:
        for subject, evaluations in zip(subjects, found, strict=True):
            if subject.generation is not None:
                show_index(subject.name, subject.generation.id, evaluations)
        if said is not None:
            console.print(printable(said), markup=False)
    if gate and not passed:
        raise typer.Exit(1)


def _subjects(
    conn: "psycopg.Connection",
    generation: int | None,
    artefact: Path | None,
    compare: tuple[int, int] | None,
    gate: bool,
) -> list[_Subject]:
    """Return what to evaluate: one, or the baseline and the candidate."""
    from pgembed.encoders.onnx_encoder import OnnxEncoder
    from pgembed.errors import EvaluationError
    from pgembed.vectors.generations import active_id, get_generation
    from pgembed.vectors.search import encoder_of

    def of(generation_id: int) -> _Subject:
        row = get_generation(conn, generation_id)
        return _Subject(f"generation {row.id} ({row.encoder})", lambda: encoder_of(row), row)

    if compare is not None:
        return [of(generation_id) for generation_id in compare]
    active = active_id(conn)
    if artefact is not None:
        chosen = _Subject(str(artefact), lambda: OnnxEncoder.load(artefact, bulk=True))
    elif generation is not None:
        chosen = of(generation)
    elif active is not None:
        chosen = of(active)
    else:
        raise EvaluationError(
            "No generation is active, so there is no encoder to evaluate.",
            remedy="Name one by --encoder, --artefact or --generation; or build one: pgembed reindex --activate.",
        )
    return [of(active), chosen] if gate and active is not None else [chosen]


def _datasets(
    conn: "psycopg.Connection", folders: list[Path] | None, split: str | None, held_out: "HeldOut", mask_names: bool
) -> "Iterator[Dataset]":
    from dataclasses import replace

    from pgembed.evaluation.beir import read_beir
    from pgembed.evaluation.held_out import read_held_out

    if folders:
        for folder in folders:
            yield read_beir(folder, split)
        return
    yield read_held_out(conn, held_out)
    if mask_names:
        yield read_held_out(conn, replace(held_out, mask_names=True))


def _evaluate_all(
    conn: "psycopg.Connection", subject: _Subject, datasets: "list[Dataset]", mode: "Mode", again: bool, index: bool
) -> "list[Evaluation]":
    """Evaluate one encoder on everything, and with `index` its generation's; it is let go before the next is loaded."""
    from pgembed.cli.eval_index import measure_index
    from pgembed.evaluation.evaluate import evaluate_dataset

    encoder = subject.load()
    progress = show_progress()
    found = [
        evaluate_dataset(conn, encoder, dataset, mode=mode, again=again, progress=progress) for dataset in datasets
    ]
    if index and encoder is not None and subject.generation is not None:
        return measure_index(conn, subject.generation, encoder, datasets, found, again=again, progress=progress)
    return found


def _report(
    conn: "psycopg.Connection",
    file: Path,
    datasets: "list[Dataset]",
    found: "list[tuple[_Subject, list[Evaluation]]]",
    comparisons: "list[Comparison]",
    said: str | None,
) -> None:
    from pgembed.evaluation.lineage import read_index, read_lineage
    from pgembed.evaluation.report import Subject, write_report

    subjects = [
        Subject(
            subject.name,
            evaluations,
            read_lineage(conn, evaluations[0].encoder_id),
            None if subject.generation is None else read_index(conn, subject.generation.id),
        )
        for subject, evaluations in found
    ]
    write_report(file, datasets, subjects, comparisons, verdict=said)
    show_progress().say(f"The report is in {file}.")
