"""An exported encoder in lower precision, as an artefact of its own: written only once it has passed the gate.

Reads the float32 artefact and, for float16, the weights; writes an artefact whose manifest says what it is a variant of
and what it was measured by.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg

from pgembed.encoders.artefact import MODEL, Manifest, tokenizer_name
from pgembed.encoders.half_written import begin_folder
from pgembed.encoders.onnx_encoder import OnnxEncoder
from pgembed.encoders.weights import file_sha256, fingerprint, make_ready
from pgembed.errors import ExportError
from pgembed.evaluation.dataset import Dataset
from pgembed.progress import SILENT, Progress
from pgembed.training.export import (
    PARITY_TEXTS,
    intact_export,
    remove_left,
    replace_folder,
    require_replaceable,
    write_manifest,
)
from pgembed.training.quantise import write_half, write_int8
from pgembed.training.variant_gate import Verdict, judge, unjudged

PRECISIONS = {"fp16": "float16", "int8": "int8"}
"""By the name on the command line; fp32 is what `export_encoder` writes."""

# What is quantised, the first of these that passes. Embedding tables are most of a small model's bytes (MiniLM: 59 MB
# without them, 23 with; mean cosine .9940 and .9938) and cost no time; they have one scale for all words.
_QUANTISED = (("MatMul", "Gemm", "Gather"), ("MatMul", "Gemm"))


class GateError(ExportError):
    """The variant does not find what the float32 encoder finds."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        super().__init__(
            f"The {verdict.precision} variant did not pass: of its vectors 99 of 100 have a cosine of "
            f"{verdict.cosines.quantiles['0.01']:.4f} or more to float32's (asked: {verdict.limits.cosine}), and it "
            f"loses {verdict.drop or 0:.2f} points of nDCG@10 (allowed: {verdict.limits.points}).",
            remedy="Nothing was written. Go on with --precision fp32, or try another precision.",
        )


def export_variant(
    reference: Manifest,
    precision: str,
    out: Path,
    *,
    conn: psycopg.Connection[Any] | None = None,
    dataset: Dataset | None = None,
    progress: Progress = SILENT,
) -> Manifest:
    """Write `reference`, a float32 artefact, in `precision` (float16, int8) into the folder `out`.

    It is measured on `dataset`, in the database of `conn` (autocommitting, with pgvector's types). Without a data set
    it is written as it is, and the manifest says so. An intact variant of the same graph is kept, unless it was written
    without the gate and now is to pass it.

    Raises:
        GateError: it does not pass; nothing was written.
        ExportError: `reference` is no float32 graph, or `out` is its folder, or holds something else than an export.
        EvaluationError: the data set is too small to judge by.
        EncoderError: the weights are not there any more, or a graph gives no usable vector.
    """
    if reference.precision != "float32":
        raise ExportError(f"{reference.path} is {reference.precision}: a variant is made from float32.")
    if out.resolve() == reference.path.resolve():
        raise ExportError(f"{out} holds the float32 graph.", remedy="Give --out another folder.")
    require_replaceable(out)
    remove_left(out)
    there = intact_export(out)
    if there is not None and _is_variant(there, reference, precision) and (dataset is None or not there.is_unjudged):
        progress.say(f"{out} holds this variant already.")
        return there
    progress.say(f"Writing {reference.spec.name} in {precision} to {out} …")
    base = OnnxEncoder.of(reference, bulk=True)
    attempts = _QUANTISED if precision == "int8" else ((),)
    failed: Verdict | None = None
    for operators in attempts:
        partial = begin_folder(out)
        try:
            draft = _write(reference, precision, operators, partial)
            # no manifest is there yet, so that a run that is killed leaves nothing that would be taken for an encoder
            variant = OnnxEncoder.of(replace(draft, path=partial), bulk=True)
            if dataset is None or conn is None:
                verdict = unjudged(base, variant, PARITY_TEXTS)
            else:
                verdict = judge(conn, base, variant, dataset, progress=progress)
            if verdict.passed or dataset is None:
                manifest = replace(draft, path=out, gate=verdict.to_json())
                write_manifest(manifest, partial)
                partial.chmod(0o755)
                replace_folder(partial, out)
                return manifest
            failed = verdict
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    assert failed is not None  # noqa: S101 - there is at least one attempt
    raise GateError(failed)


def _write(reference: Manifest, precision: str, operators: tuple[str, ...], folder: Path) -> Manifest:
    """Write everything but the manifest, and return that."""
    spec = reference.spec
    for tower in spec.towers:
        shutil.copyfile(reference.tokenizer_path(tower), folder / tokenizer_name(tower))
    if precision == "int8":
        write_int8(reference.model_path, folder / MODEL, operators)
    else:
        folders = make_ready(spec)
        if fingerprint(spec, folders) != reference.fingerprint:
            raise ExportError(
                f"The weights of {spec.name} are not those that {reference.path} was exported from.",
                remedy="Run the same command again: it exports them anew.",
            )
        write_half(spec, folders, folder / MODEL)
    producer = {**reference.producer, "precision": precision}
    if operators:
        producer["quantised"] = list(operators)
    return replace(
        reference,
        path=folder,
        files={path.name: file_sha256(path) for path in sorted(folder.iterdir())},
        producer=producer,
        variant_of=reference.onnx_sha256,
    )


def _is_variant(there: Manifest, reference: Manifest, precision: str) -> bool:
    return there.variant_of == reference.onnx_sha256 and there.precision == precision
