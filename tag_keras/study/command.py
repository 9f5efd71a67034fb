"""A script's command: what goes wrong ends it with one line."""

from collections.abc import Callable

from tag_keras.sweep.sweep import SweepError


def command(name: str, run: Callable[[], None]) -> Callable[[list[str]], None]:
    """What `absl.app.run` calls: `run`, whose errors end the program with one line.

    Args:
        name: Name of the script, for the line.
        run: What the script does.
    """

    def main(argv: list[str]) -> None:
        from absl import app

        if len(argv) > 1:
            raise app.UsageError(f"Unknown arguments: {argv[1:]}")
        try:
            run()
        except (ValueError, OSError, ImportError, SweepError) as error:
            raise SystemExit(f"{name}: {error}") from error
        except KeyboardInterrupt:
            # Of all that is left, a traceback would be the least useful.
            raise SystemExit(f"{name}: stopped. The same command goes on.") from None

    return main
