#!/usr/bin/env python
"""Copy the browser libraries into webapp/static/vendor.

htmx comes from the django-htmx package; KaTeX, the tus client and plotly.js come from node_modules
(package.json pins them; plotly.js in its "basic" build, a fifth of the size of the Python
package's). When node_modules lacks one of them, ``npm ci`` is run first.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

from whitenoise.compress import Compressor

ROOT = Path(__file__).resolve().parent.parent
NODE = ROOT / "node_modules"
VENDOR = ROOT / "webapp" / "static" / "vendor"

PLOTLY = NODE / "plotly.js-basic-dist-min"
KATEX = NODE / "katex" / "dist"
TUS = NODE / "tus-js-client" / "dist"

# Browsers that run the pages' JavaScript all read woff2; the two older formats would only be
# copied, hashed and never fetched.
OLDER_FONTS = re.compile(r',url\(fonts/[\w-]+\.(?:woff|ttf)\) format\("(?:woff|truetype)"\)')


def htmx_folder() -> Path:
    """Return the folder in which django-htmx ships htmx."""
    spec = importlib.util.find_spec("django_htmx")
    if spec is None or spec.origin is None:
        sys.exit("vendor: django-htmx is not installed; run pip install -r requirements-base.txt.")
    return Path(spec.origin).parent / "static" / "django_htmx"


def install_node_packages() -> None:
    """Run ``npm ci`` where node_modules lacks a library that package.json names."""
    if PLOTLY.is_dir() and KATEX.is_dir() and TUS.is_dir():
        return
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("vendor: npm is not on the PATH; install Node.js, or copy node_modules here.")
    done = subprocess.run([npm, "ci"], cwd=ROOT, check=False)
    if done.returncode != 0:
        sys.exit(f"vendor: npm ci failed with code {done.returncode}; its message stands above.")


def copy_libraries(target: Path) -> None:
    """Copy htmx, KaTeX (with its woff2 fonts) and plotly.js into ``target``."""
    target.mkdir(parents=True, exist_ok=True)
    fonts = target / "fonts"
    fonts.mkdir(exist_ok=True)
    shutil.copyfile(htmx_folder() / "htmx-2.min.js", target / "htmx.min.js")
    shutil.copyfile(PLOTLY / "plotly-basic.min.js", target / "plotly-basic.min.js")
    shutil.copyfile(KATEX / "katex.min.js", target / "katex.min.js")
    shutil.copyfile(KATEX / "contrib" / "auto-render.min.js", target / "auto-render.min.js")
    shutil.copyfile(TUS / "tus.min.js", target / "tus.min.js")
    for font in (KATEX / "fonts").glob("*.woff2"):
        shutil.copyfile(font, fonts / font.name)
    css = OLDER_FONTS.sub("", (KATEX / "katex.min.css").read_text(encoding="utf-8"))
    (target / "katex.min.css").write_text(css, encoding="utf-8")


def compress(target: Path) -> None:
    """Write each script's and stylesheet's ``.gz`` beside it: whitenoise sends that one."""
    compressor = Compressor(use_brotli=False, quiet=True)
    for file in target.iterdir():
        if file.suffix in (".js", ".css"):
            compressor.compress(str(file))


def main() -> int:
    """Install what is missing, copy, compress, and say where to."""
    install_node_packages()
    copy_libraries(VENDOR)
    compress(VENDOR)
    size = sum(file.stat().st_size for file in VENDOR.rglob("*") if file.is_file())
    print(f"vendor: {VENDOR.relative_to(ROOT)} holds {size / 1e6:.1f} MB")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
