"""What several tests of checkpoints do: press Ctrl-C at a moment, and write small pieces."""

import signal

import pytest

from sgworld_mcmc import progress
from sgworld_mcmc.checkpoint import saved_run
from sgworld_mcmc.sampling import loop


@pytest.fixture
def press(monkeypatch):
    """Press Ctrl-C when a stage has come to a part of it."""
    before_signal = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(loop, "BLOCK_SECONDS", 1e-9)  # a call a block
    before = progress.Reporter.update

    def at(stage, done):
        def pressing(self, value):
            before(self, value)
            if self.name == stage and self._done[stage] >= done:
                monkeypatch.setattr(progress.Reporter, "update", before)
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(progress.Reporter, "update", pressing)

    yield at
    signal.signal(signal.SIGINT, before_signal)


@pytest.fixture
def small_window(monkeypatch):
    monkeypatch.setattr(saved_run, "WINDOW_BYTES", 200)
