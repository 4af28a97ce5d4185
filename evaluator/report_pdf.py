"""A report's page as PDF, by WeasyPrint in a child that is bounded in time and memory.

WeasyPrint needs Debian's pango; where it or the package is missing, a sentence says what to
install. ``python -m evaluator.report_pdf TARGET`` is the child: HTML on standard input.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

from evaluator.errors import EvaluatorError, InputError

PACKAGES = "libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0"
CPU_SECONDS = 240
WALL_SECONDS = 600.0
MEMORY_BYTES = 4 << 30
_MISSING = 3
_TAIL = 300


class PdfError(EvaluatorError):
    """A page could not be made a PDF."""


def write_pdf(html: str, target: Path) -> None:
    """Write ``html`` as PDF, whole or not at all.

    Raises InputError where a library is missing, and PdfError where the page used up its time or
    memory, or WeasyPrint failed on it.
    """
    part = target.with_name(f".{target.name}.part")
    command = [sys.executable, "-m", "evaluator.report_pdf", str(part.absolute())]
    try:
        done = subprocess.run(
            command, input=html.encode(errors="replace"), capture_output=True, env=_environment(),
            timeout=WALL_SECONDS, check=False,
        )  # fmt: skip
        said = done.stderr.decode(errors="replace").strip()
        if done.returncode == _MISSING:
            raise InputError(said.splitlines()[-1])
        if done.returncode or not part.is_file():
            raise PdfError(
                f"pdf: the page could not be drawn (exit code {done.returncode}): {said[-_TAIL:]}"
            )
        part.replace(target)
    except subprocess.TimeoutExpired:
        raise PdfError(
            f"pdf: the page took longer than {WALL_SECONDS:.0f} s; take the HTML report instead."
        ) from None
    finally:
        part.unlink(missing_ok=True)


def available() -> bool:
    """Whether PDFs can be made here."""
    check = [sys.executable, "-c", "import weasyprint"]
    done = subprocess.run(
        check, capture_output=True, check=False, timeout=60, env=_environment()
    )  # fmt: skip
    return not done.returncode


def _environment() -> dict[str, str]:
    """What the child is told: no secret, and nothing that differs from host to host."""
    return {
        "PATH": os.defpath, "LANG": "C.UTF-8",
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        "PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": "0", "HOME": os.environ.get("HOME", "/"),
    }  # fmt: skip


def _refuse(url: str, *_: object, **__: object) -> dict[str, object]:
    raise ValueError(f"a report loads nothing: {url[:80]}")


def _main(target: str) -> int:
    try:
        import weasyprint
    except (ImportError, OSError) as error:
        reason = str(error).splitlines()[0]
        sys.stderr.write(
            f"pdf: WeasyPrint or its pango is missing ({reason[:120]}); install "
            f"requirements-base.txt and run: apt-get install {PACKAGES}\n"
        )
        return _MISSING
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    page = weasyprint.HTML(string=sys.stdin.read(), url_fetcher=_refuse)
    page.write_pdf(target)
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1]))
