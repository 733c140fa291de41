"""The command ``sgworld-mcmc shuffle``."""

import argparse

from sgworld_mcmc.streaming.shuffle import shuffle_files

__all__ = ["run_cli"]


def run_cli(namespace: argparse.Namespace) -> int:
    """Shuffle the files, with progress, and print the names of the copies."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as shown:
        tasks = {}

        def progress(name: str, done: float) -> None:
            if name not in tasks:
                tasks[name] = shown.add_task(name, total=1.0)
            shown.update(tasks[name], completed=done)

        made = shuffle_files(namespace.files, namespace.out, namespace.seed, progress)
    for path in made:
        print(path)
    return 0
