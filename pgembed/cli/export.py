"""`pgembed export`: an encoder as one ONNX graph."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from pgembed.cli.common import DsnOption, JsonOption, connection, console, print_json, printable, show_progress
from pgembed.config import settings

if TYPE_CHECKING:
    from pgembed.encoders.artefact import Manifest


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("export")(export)


def export(
    run: Annotated[
        int | None,
        typer.Option("--run", metavar="ID", min=1, max=2**63 - 1, help="A finished training run. Default: the newest."),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", metavar="NAME", help="An encoder known by name, such as minilm.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            metavar="PATH",
            help="A checkpoint, a folder of sentence-transformers, or an encoder file (see below).",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="Default: a folder of its own under PGEMBED_HOME.")
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            metavar="HOW",
            help="fp32 (default), fp16 (for a GPU), or int8 (for a CPU): a variant beside the fp32 graph.",
        ),
    ] = "fp32",
    dataset: Annotated[
        Path | None,
        typer.Option(
            "--dataset", metavar="DIR", help="Measure the variant on this data set in BEIR's layout, not on your code."
        ),
    ] = None,
    without_gate: Annotated[
        bool, typer.Option("--without-gate", help="Write the variant unmeasured. It is recorded, and told at each use.")
    ] = False,
    dsn: DsnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write an encoder as one ONNX graph: tokens in, 2,560 normalised floats out.

    The graph is held against torch over lengths, paddings and batch sizes; below a cosine of 0.9999 nothing is
    written. An intact export of the same encoder is kept.

    A variant in lower precision has to find what the fp32 graph finds: on the validation split of the code in the
    database (docstring → body), or on --dataset, nDCG@10 may fall by half a point (fp16) or a point (int8) at most, and
    the vectors must stay near. Otherwise nothing is written and the exit code is 1.

    Weights that lie on the disk are given by an encoder file, which takes the rest from an encoder known by name. It is
    JSON: {"preset": "qodo-jina", "weights": {"qodo": "/models/qodo", "jina-v3": "/models/jina-v3"}}
    With "tower_weights": {"qodo": 0.9, "jina-v3": 0.4} the towers count so much in the joined vector.

    \b
    Examples:
        pgembed export
        pgembed export --encoder minilm
        pgembed export --checkpoint ~/models/mine --out ~/artefacts/mine
        pgembed export --checkpoint ~/models/pair.json
        pgembed export --encoder minilm --precision int8
    """
    if sum(source is not None for source in (run, encoder, checkpoint)) > 1:
        raise typer.BadParameter("--run, --encoder and --checkpoint exclude each other.")
    if precision not in ("fp32", "fp16", "int8"):
        raise typer.BadParameter(f"{precision!r} is no precision; there are fp32, fp16 and int8.")
    if precision == "fp32" and (dataset is not None or without_gate):
        raise typer.BadParameter("--dataset and --without-gate are of --precision fp16 and int8.")
    if dataset is not None and without_gate:
        raise typer.BadParameter("--dataset is what the gate measures on: it does not go with --without-gate.")
    from pgembed.training import require_torch

    require_torch()
    from pgembed.training.export import export_encoder

    name = None
    source: str | Path
    if encoder is not None:
        source = label = encoder
    elif checkpoint is not None:
        source, label = checkpoint, checkpoint.resolve().name.removesuffix(".json")
    else:
        from pgembed.training.runs import finished_checkpoint

        with connection(dsn) as conn:
            run_id, source = finished_checkpoint(conn, run)
        label = source.parent.name
        name = f"run-{run_id}"
    models = settings().models_dir
    place = out if out is not None and precision == "fp32" else models / label
    manifest = export_encoder(source, place, name=name, progress=show_progress())
    if precision != "fp32":
        place = out or models / f"{label}-{precision}"
        manifest = _variant(manifest, precision, place, dataset, without_gate, dsn, as_json)
    if as_json:
        print_json({"path": manifest.path, **manifest.to_json()})
        return
    _tell(manifest)


def _variant(
    reference: "Manifest",
    precision: str,
    place: Path,
    folder: Path | None,
    without_gate: bool,
    dsn: str | None,
    as_json: bool,
) -> "Manifest":
    """Export `reference` in a lower precision; what was measured of one that fails is shown before the error."""
    from pgembed.errors import EvaluationError, ExportError
    from pgembed.evaluation.beir import read_beir
    from pgembed.evaluation.held_out import HeldOut, read_held_out
    from pgembed.training.variant import PRECISIONS, GateError, export_variant

    wanted = PRECISIONS[precision]
    if without_gate:
        return export_variant(reference, wanted, place, progress=show_progress())
    with connection(dsn, vectors=True) as conn:
        try:
            data = read_beir(folder) if folder is not None else read_held_out(conn, HeldOut("validation"))
            return export_variant(reference, wanted, place, conn=conn, dataset=data, progress=show_progress())
        except EvaluationError as error:
            raise ExportError(
                f"There is nothing to judge the {precision} variant by: {error.message}",
                remedy="Nothing was written. Name a data set in BEIR's layout (--dataset DIR), ingest more code, or "
                "take the variant unmeasured: --without-gate.",
            ) from error
        except GateError as failure:
            if as_json:
                print_json({"gate": failure.verdict.to_json()})
            else:
                _show_gate(failure.verdict.to_json())
            raise


def _tell(manifest: "Manifest") -> None:
    console.print(printable(f"{manifest.spec.name}: {manifest.path}"), markup=False)
    size = sum((manifest.path / name).stat().st_size for name in manifest.files if name.startswith("model.onnx"))
    parity = manifest.parity
    console.print(
        f"  {size / 1e6:.1f} MB, {manifest.precision}, licence {manifest.spec.licence}; float32 against torch: least "
        f"cosine {parity['least_cosine']:.7f}, largest difference {parity['largest_difference']:.1e} over "
        f"{parity['vectors']} vectors",
        markup=False,
    )
    if manifest.gate is not None:
        _show_gate(manifest.gate)
    console.print(printable(f"Next: pgembed reindex --artefact {manifest.path}"), markup=False)


def _show_gate(gate: dict[str, Any]) -> None:
    """Print what a variant was measured by, as the manifest has it."""
    shown = Table("", "float32", gate["precision"], "asked", "", box=None)
    for row in gate["table"]:
        shown.add_row(*row)
    console.print(shown)
    if gate["judged"]:
        what = f"{gate['dataset']}: {gate['queries']:,} queries, {gate['documents']:,} documents"
        console.print(printable(f"{what}. {'Passed.' if gate['passed'] else 'Failed.'}"), markup=False)
    else:
        console.print("Not measured on any data (--without-gate): cosines on made-up texts alone.", markup=False)
