"""The command line: parse, call one verb, print one table, turn our errors into one line.

Verbs are imported inside the commands: `--help` answers without loading torch.
"""

from __future__ import annotations

import gc
import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from cyclopts import App, Group
from cyclopts.exceptions import CycloptsError, UnknownOptionError
from cyclopts.help.formatters import DefaultFormatter

from acclimate import __version__, processes
from acclimate.cli.commands import (
    adapt,
    answer,
    compare,
    doctor,
    encode,
    evaluate,
    evaluate_reranker,
    export,
    feedback,
    generate,
    hypernetwork_evaluate,
    hypernetwork_tasks,
    hypernetwork_train,
    index,
    merge,
    mine,
    pairs,
    prepare,
    refresh,
    report,
    rerank,
    rollback,
    route,
    search,
    serve,
    similarity,
    train,
    train_reranker,
    tune,
    vectors,
    versions,
)
from acclimate.cli.help import whole_flags
from acclimate.cli.lists import one_flag_a_word
from acclimate.cli.old_spellings import respelt
from acclimate.cli.options import Command, setting_of
from acclimate.configs import check_settings
from acclimate.cpu import sleep_while_waiting
from acclimate.errors import AcclimateError, Interrupted, UsageError
from acclimate.files import storage_error
from acclimate.ownership import commanded

GROUPS: dict[str, tuple[Command, ...]] = {
    "Adapt a model": (
        adapt.COMMAND,
        pairs.COMMAND,
        prepare.COMMAND,
        mine.COMMAND,
        train.COMMAND,
        evaluate.COMMAND,
        report.COMMAND,
        compare.COMMAND,
        versions.COMMAND,
    ),
    "Use it": (
        index.COMMAND,
        search.COMMAND,
        route.COMMAND,
        answer.COMMAND,
        serve.COMMAND,
        similarity.COMMAND,
        encode.COMMAND,
        merge.COMMAND,
        export.COMMAND,
        vectors.COMMAND,
        tune.COMMAND,
    ),
    "Learn from feedback": (feedback.COMMAND, refresh.COMMAND, rollback.COMMAND),
    "Without training": (
        generate.COMMAND,
        hypernetwork_tasks.COMMAND,
        hypernetwork_train.COMMAND,
        hypernetwork_evaluate.COMMAND,
    ),
    "Rerankers": (train_reranker.COMMAND, evaluate_reranker.COMMAND, rerank.COMMAND),
    "This machine": (doctor.COMMAND,),
}
"""Heading of --help -> its commands."""
COMMANDS = {command.name: command for commands in GROUPS.values() for command in commands}
SHARED = ("adapt", "prepare", "mine", "train", "train-reranker", "evaluate", "evaluate-reranker", "encode", "index")
"""What several processes can do together; the others are done by one."""
HELP_ALL = "--help-all"


def application(chosen: str = "", everything: bool = False) -> App:
    """The commands, for cyclopts; flags are made for the chosen one only, because that takes time.

    Args:
        chosen: the command that is asked for.
        everything: its help shows all settings.
    """
    app = App(
        name="acclimate",
        version=__version__,
        help_format="plaintext",
        help="Adapt a text-embedding model to a domain, prove that it got better, and use it.",
        help_epilogue="acclimate COMMAND --help shows what matters and an example, --help-all every setting.",
        suppress_keyboard_interrupt=False,  # `main` says what ctrl-C has left
    )
    flags_whole = DefaultFormatter(column_specs=whole_flags)
    app["--help"].group = app["--version"].group = Group("Options", sort_key=len(GROUPS))
    for place, (heading, commands) in enumerate(GROUPS.items()):
        group = Group(heading, sort_key=place)
        for order, command in enumerate(commands):
            epilogue = f"Example: {command.example}"
            if not command.shows_all and not everything:
                epilogue += f"\nAll settings: acclimate {command.name} {HELP_ALL}"
            app.command(
                command.parsed(everything) if command.name == chosen else command.function,
                name=command.name,
                group=group,
                sort_key=order,
                help_epilogue=epilogue,
                help_formatter=flags_whole,
            )
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; every failure is one line on standard error and a non-zero exit code.

    Of several processes the first one speaks; where one fails it says why, and the launcher ends the others.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        given = _one_word(given)
        _join(given)
        given = respelt(given)
        _run(given)
    except AcclimateError as error:
        _fail(error)
    except CycloptsError as error:
        _fail(UsageError(str(error), fix=f"See: {shlex.join(['acclimate', *_command(given)])} --help"))
    except KeyboardInterrupt:
        _fail(Interrupted("stopped", fix="Start the same command again; it goes on from what is finished."))
    except BrokenPipeError:
        # The reader of our output (head, less) is gone: not our failure, but nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _fail(storage_error(Path(error.filename or "a file"), error))
    except Exception as error:
        _fail(_internal(error))
    else:
        processes.stop()


def console_script() -> None:
    """What the installed `acclimate` starts: `main`, after which the process ends."""
    sleep_while_waiting()
    try:
        main()
    finally:
        # torch and transformers leave three thousand modules, which the collector would look through once more.
        gc.freeze()


def _run(arguments: Sequence[str]) -> None:
    """Parse and call.

    Raises:
        UsageError: a setting that another command reads.
    """
    (command,) = _command(arguments) or ("",)
    everything = HELP_ALL in arguments
    words = ["--help" if word == HELP_ALL else word for word in arguments]
    if command:
        words = [COMMANDS[command].respelt(word) for word in words]
        words = [words[0], *one_flag_a_word(COMMANDS[command], words[1:])]
    try:
        app = application(command, everything)
        with commanded("acclimate", *arguments):
            app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except UnknownOptionError as error:
        word = error.token.keyword or error.token.value
        if command and (name := setting_of(word, command)):
            check_settings(command, [name], COMMANDS[command].flag)
        raise


def _one_word(arguments: list[str]) -> list[str]:
    """The words, with `hypernetwork train` as the one command that it is."""
    joined = "-".join(arguments[:2])
    return [joined, *arguments[2:]] if len(arguments) > 1 and joined in COMMANDS else arguments


def _command(arguments: Sequence[str]) -> list[str]:
    """The command that is asked for, if it is one of ours."""
    return [word for word in arguments[:1] if word in COMMANDS]


def _join(arguments: Sequence[str]) -> None:
    """Meet the processes that `torchrun` has started beside this one, if any.

    Raises:
        UsageError: the command is not one that processes can share.
    """
    if processes.count() == 1:
        return
    if not set(SHARED) & set(arguments[:1]):
        raise UsageError(
            f"{processes.count()} processes were started for {shlex.join(['acclimate', *arguments[:1]])}",
            possible=", ".join(SHARED),
            fix="Start this command alone.",
        )
    processes.start()
    if not processes.is_main():
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  (for as long as the process lives)


def _fail(error: AcclimateError) -> None:
    if processes.fails_first():
        sys.stderr.write(f"acclimate: {error}\n")
    sys.exit(error.exit_code)


def _internal(error: Exception) -> AcclimateError:
    """A bug of ours: one line for the user, the traceback in a file for us."""
    with tempfile.NamedTemporaryFile("w", prefix="acclimate-", suffix=".txt", delete=False) as stream:
        traceback.print_exception(error, file=stream)
    return AcclimateError(
        f"internal error, {type(error).__name__}: {error}", fix=f"Please report it with {stream.name}"
    )


if __name__ == "__main__":
    console_script()
