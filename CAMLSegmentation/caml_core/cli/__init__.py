"""The ``caml`` command. Each sub-command is a module with ``HELP``, ``add_arguments(parser)`` and ``run(args)``.

The modules of this package import the standard library only at file scope, so that ``caml --help`` is immediate.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from contextlib import suppress

from .. import __version__
from ..errors import CamlError
from .streams import finish, lasting

#: Sub-command -> module of this package.
COMMANDS = {
    "plan": "plan",
    "preflight": "preflight",
    "train": "train",
    "round": "round",
    "predict": "predict",
    "evaluate": "evaluate",
    "info": "info",
    "devices": "devices",
    "import-checkpoint": "import_checkpoint",
    "phantom": "phantom",
    "report": "report",
}
_EPILOG = """caml COMMAND --help explains a command. A first try, on procedural scans:

  caml phantom atrium -o PHANTOMS
  caml round PHANTOMS -o ROUND --budget 5m --baseline
"""
#: What shells report for a program that SIGPIPE ended.
_PIPE_CLOSED = 141


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all sub-commands."""
    parser = argparse.ArgumentParser(
        prog="caml",
        description="Segment MRI and CTA volumes with CAML, and train it on a few labelled scans.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"caml {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module_name in COMMANDS.items():
        module = importlib.import_module(f".{module_name}", __name__)
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; a CamlError becomes one sentence on stderr."""
    _use_unicode_paths()
    options = build_parser().parse_args(arguments)
    try:
        code = int(options.run(options) or 0)
    except CamlError as error:
        lasting(sys.stderr).write(f"caml {options.command}: {error}\n")
        code = error.exit_code
    except KeyboardInterrupt:
        lasting(sys.stderr).write(f"caml {options.command}: interrupted\n")
        code = 130
    except BrokenPipeError:  # whoever read the output has had enough (``caml info ... | head``)
        code = _PIPE_CLOSED
    return finish(code)


def _use_unicode_paths() -> None:
    """On Windows, let C libraries take file names as UTF-8: ITK's NRRD reader opens them by the C runtime's locale."""
    if sys.platform == "win32":
        import locale

        with suppress(locale.Error):  # Windows before 2018 has no such locale
            locale.setlocale(locale.LC_CTYPE, ".UTF8")
