"""The command of a script."""

from collections.abc import Callable


def command(name: str, run: Callable[[], None]) -> Callable[[list[str]], None]:
    """Wraps `run` for `absl.app.run`: an error ends the script with one line, no traceback."""

    def main(argv: list[str]) -> None:
        from absl import app

        if len(argv) > 1:
            raise app.UsageError(f"Unknown arguments: {argv[1:]}")
        # Not at the top: it loads TensorFlow, which --help does without.
        from tag_keras.sweep.sweep import SweepError

        try:
            run()
        except (ValueError, OSError, ImportError, SweepError) as error:
            raise SystemExit(f"{name}: {error}") from error
        except KeyboardInterrupt:
            raise SystemExit(f"{name}: stopped. The same command goes on.") from None

    return main
