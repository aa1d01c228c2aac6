"""The command `abgate`: names, options and exit codes; what a command does lives in cli_*.py and is imported when it runs.

Exit codes everywhere: 0 fine, 1 worse or failed, 2 inconclusive or unstable, 3 bad configuration, 99 internal.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

_COMMANDS = {
    "init": ("gateway.cli_config", "Write a commented abgate.yaml."),
    "check": ("gateway.cli_config", "Validate the configuration; opens no port."),
    "serve": ("gateway.cli_serve", "Run the gateway."),
    "up": ("gateway.cli_up", "Start the local servers and the gateway; Ctrl-C stops all."),
    "demo": ("gateway.cli_demo", "Models, servers, gateway, load test, report: all in one."),
    "models": ("gateway.cli_models", "Build the models twice, prove they are the same, add your own."),
    "infer": ("gateway.cli_infer", "Send one request; print tensors, arm and timings."),
    "loadtest": ("gateway.cli_loadtest", "Run a load test against the gateway or one server."),
    "claims": ("gateway.cli_claims", "Ask published claims about the two servers of this machine."),
    "report": ("gateway.cli_loadtest", "Write the report of a run."),
    "capture": ("gateway.cli_capture", "Keep a sample of the real requests, to replay them."),
    "compare": ("gateway.cli_compare", "Runs side by side: what differs, and their figures."),
    "experiment": ("gateway.cli_experiment", "Show experiments, change weights, kill switch."),
}
# below `abgate loadtest`; a module registers its experiment here
EXPERIMENTS = {
    "compare": ("gateway.cli_lab", "Compare arms on fresh server starts, with a verdict."),
    "aa": ("gateway.cli_lab", "Compare arms with themselves: how often is a difference found?"),
    "slo": ("gateway.cli_searches", "Requests per second and core at a p99, and their cost."),
    "sweep": ("gateway.cli_searches", "Throughput and latency over concurrency and over rate."),
    "batching": ("gateway.cli_searches", "The batch size and wait that serve a model best."),
}


class Lazy(click.Group):
    """A group that knows its commands' modules and first lines, and imports one when it is called."""

    table = _COMMANDS

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = self.table.get(cmd_name)
        if entry is None:
            return None
        command: Any = getattr(importlib.import_module(entry[0]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self.table.items()])


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="abgate")
def cli() -> None:
    """Send the same inference traffic to the same model on TorchServe and TensorFlow Serving, and compare with evidence.

    Exit codes: 0 fine, 1 worse or failed, 2 inconclusive or unstable, 3 bad configuration, 99 internal.
    """


def main() -> None:
    """Run the command and exit with its code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; problems are told on stderr."""
    from gateway.errors import AbgateError, ConfigError

    try:
        result = cli.main(arguments, prog_name="abgate", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.ClickException as error:
        error.show()
        return 3
    except ConfigError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        return 3
    except AbgateError as error:
        click.echo(f"abgate: {error}", err=True)
        return 1
    except (click.Abort, KeyboardInterrupt):
        click.echo("abgate: interrupted", err=True)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception:
        import traceback

        traceback.print_exc()
        return 99
