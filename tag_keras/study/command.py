"""The command of a script: an error ends it with one line, not with a traceback."""

from collections.abc import Callable

from tag_keras.sweep.sweep import SweepError


def command(name: str, run: Callable[[], None]) -> Callable[[list[str]], None]:
    """Wraps the main function of a script for `absl.app.run`: errors end it with one line."""

    def main(argv: list[str]) -> None:
        from absl import app

        if len(argv) > 1:
            raise app.UsageError(f"Unknown arguments: {argv[1:]}")
        try:
            run()
        except (ValueError, OSError, ImportError, SweepError) as error:
            raise SystemExit(f"{name}: {error}") from error
        except KeyboardInterrupt:
            raise SystemExit(f"{name}: stopped. The same command goes on.") from None

    return main
