"""``report`` and ``verify-report``: a run's report in each form, and whether a bundle is whole."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import typer

from evaluator import bundle, disputes, report_files, signing
from evaluator.commands.console import CPUS, check_writable
from evaluator.errors import InputError
from evaluator.local import LocalRun
from evaluator.local_report import content_of
from evaluator.terminal import printable

_NOTICE_CHARACTERS = 500


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    *,
    output: Annotated[
        Path | None, typer.Option(help="File to write; default: report.FORMAT in the folder.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help=f"One of: {', '.join(report_files.FORMATS)}; default: by the name of --output. "
            "zip is the signed bundle of all.",
        ),
    ] = None,
    private_texts: Annotated[
        bool, typer.Option(help="Also the texts of a benchmark that may not be put in the open.")
    ] = False,
    dispute_file: Annotated[
        Path | None,
        typer.Option("--disputes", help="JSONL of disputes: the score with them stands beside."),
    ] = None,
    generated_at: Annotated[
        str | None, typer.Option(help="The time to write into it; default: now, UTC.")
    ] = None,
    signing_key: Annotated[
        Path | None,
        typer.Option(
            help="Ed25519 key (PEM, mode 600) that signs a bundle; made where there is none. "
            f"Default: {signing.VARIABLE}, or signing_key.pem under RETORT_VAR."
        ),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Grader processes.")] = CPUS,
) -> None:
    """Write a run's report. The page opens without a network; the bundle can be verified."""
    named = form or (output.suffix[1:] if output is not None else "html")
    chosen = report_files.checked(named)
    target = output or folder / f"report.{chosen}"
    check_writable(target)
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    content = content_of(
        LocalRun.open(folder),
        generated_at=generated_at or now,
        private_texts=private_texts,
        disputes=[] if dispute_file is None else disputes.read(dispute_file),
        jobs=jobs,
    )
    path = signing_key or signing.default_path()
    report_files.write(content, chosen, target, key=lambda: signing.private_key(path))
    print(target)


def verify_report(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle, a .zip.")],
    key: Annotated[
        Path | None, typer.Option(help="The maker's public key (PEM), got another way.")
    ] = None,
) -> None:
    """Check that a report's bundle is whole and who signed it."""
    trusted = None
    if key is not None:
        try:
            trusted = signing.read_public(key.read_bytes(), f"key: {key.name}")
        except OSError as error:
            raise InputError(f"key: {key} cannot be read ({error.strerror}).") from error
    found = bundle.verify(path, trusted)
    files = found.manifest["files"]
    if found.manifest.get("notice"):  # before our own words, and never more than one line
        print(
            f"its maker's notice: {printable(str(found.manifest['notice'])[:_NOTICE_CHARACTERS])}"
        )
    print(f"{path.name} is whole: {len(files)} files, each as it was signed.")
    print(f"signed by\t{found.fingerprint}")
    if not found.trusted:
        print("The key came with the bundle: give --key to know that its maker is whom you trust.")
