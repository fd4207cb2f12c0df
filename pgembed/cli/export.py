"""`pgembed export`: an encoder as one ONNX graph."""

from pathlib import Path
from typing import Annotated

import typer

from pgembed.cli.common import DsnOption, JsonOption, connection, console, print_json, printable, show_progress
from pgembed.config import settings


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("export")(export)


def export(
    run: Annotated[
        int | None, typer.Option("--run", metavar="ID", help="A finished training run. Default: the newest.")
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
    dsn: DsnOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write an encoder as one ONNX graph: tokens in, 2,560 normalised floats out.

    The graph is held against torch over lengths, paddings and batch sizes; below a cosine of 0.9999 nothing is
    written. An intact export of the same encoder is kept.

    Weights that lie on the disk are given by an encoder file, which takes the rest from an encoder known by name. It is
    JSON: {"preset": "qodo-jina", "weights": {"qodo": "/models/qodo", "jina-v3": "/models/jina-v3"}}
    With "tower_weights": {"qodo": 0.9, "jina-v3": 0.4} the towers count so much in the joined vector.

    \b
    Examples:
        pgembed export
        pgembed export --encoder minilm
        pgembed export --checkpoint ~/models/mine --out ~/artefacts/mine
        pgembed export --checkpoint ~/models/pair.json
    """
    if sum(source is not None for source in (run, encoder, checkpoint)) > 1:
        raise typer.BadParameter("--run, --encoder and --checkpoint exclude each other.")
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
    manifest = export_encoder(source, out or settings().models_dir / label, name=name, progress=show_progress())
    if as_json:
        print_json({"path": manifest.path, **manifest.to_json()})
        return
    parity = manifest.parity
    console.print(printable(f"{manifest.spec.name}: {manifest.path}"), markup=False)
    console.print(
        f"  {manifest.model_path.stat().st_size / 1e6:.1f} MB, licence {manifest.spec.licence}; against torch: least "
        f"cosine {parity['least_cosine']:.7f}, largest difference {parity['largest_difference']:.1e} over "
        f"{parity['vectors']} vectors"
    )
    console.print(printable(f"Next: pgembed reindex --artefact {manifest.path}"), markup=False)
