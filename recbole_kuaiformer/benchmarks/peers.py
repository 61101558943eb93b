"""RecTools' transformers, trained a stretch at a time: PYTHON peers.py '{"system": "RecTools HSTU", …}'.

A script of its own, which imports nothing of this package: RecTools asks for older releases of numpy and
pandas than this package may run beside, and so for a Python of its own. It answers as
benchmarks.training_systems does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
SYSTEMS = {"RecTools SASRec": "SASRecModel", "RecTools HSTU": "HSTUModel"}


def answer(what: dict[str, Any]) -> None:
    """One line to whoever asked."""
    ANSWERS.write(json.dumps(what) + "\n")


class Clock:
    """The stretch under way; kept outside of the callback, which Lightning copies."""

    start = seconds = 0.0
    targets = steps = 0

    @classmethod
    def wait(cls) -> None:
        """Wait for the next order; the end of the input ends the process."""
        line = sys.stdin.readline()
        if not line:
            os._exit(0)
        cls.seconds, cls.targets, cls.steps = float(line), 0, 0
        cls.start = time.perf_counter()

    @classmethod
    def step(cls, targets: int) -> None:
        """Count a training step, and answer if the time is up."""
        cls.targets += targets
        cls.steps += 1
        taken = time.perf_counter() - cls.start
        if taken >= cls.seconds:
            answer({"seconds": taken, "targets": cls.targets, "steps": cls.steps})
            cls.wait()


def trainer_for(facts: dict[str, Any]) -> Any:
    """A function that makes RecTools' trainer: no end, no files, and the stretches counted."""
    from pytorch_lightning import Callback, Trainer

    class Stretches(Callback):
        def on_train_start(self, _: Any, module: Any) -> None:
            parameters = sum(values.numel() for values in module.parameters())
            answer({**facts, "build_seconds": time.perf_counter() - Clock.start, "parameters": parameters})
            Clock.wait()

        def on_train_batch_end(self, *given: Any) -> None:
            _, _, _, batch, _ = given  # trainer, module, outputs, batch, number of the batch
            Clock.step(int((batch["yw"] > 0).sum()))

    def make() -> Any:
        return Trainer(
            max_epochs=1_000_000,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Stretches()],
        )

    return make


def serve(case: dict[str, Any]) -> None:
    """Build the model on the log of the case and train it as asked."""
    import numpy as np
    import pandas as pd
    import rectools
    import rectools.models
    from rectools import Columns
    from rectools.dataset import Dataset

    answer({"imported": True})
    sys.stdin.readline()
    Clock.start = time.perf_counter()
    log = np.load(case["log"])
    interactions = pd.DataFrame(
        {
            Columns.User: log["user_ids"],
            Columns.Item: log["item_ids"],
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(log["timestamps"], unit="s"),
        }
    )
    sessions = np.unique(log["user_ids"], return_counts=True)[1]
    facts = {
        "epoch_targets": int(np.minimum(sessions - 1, case["length"]).sum()),
        "items_seen": float(
            np.mean(np.concatenate([np.arange(1, min(n - 1, case["length"]) + 1) for n in sessions if n > 1]))
        ),
        "items": len(np.unique(log["item_ids"])),
        "versions": f"rectools {rectools.__version__}, numpy {np.__version__}, pandas {pd.__version__}",
        "epoch_start_seconds": 0.0,
    }
    model = getattr(rectools.models, SYSTEMS[case["system"]])(
        n_blocks=2,
        n_heads=2,
        n_factors=64,
        session_max_len=case["length"],
        loss="softmax",
        get_trainer_func=trainer_for(facts),
    )
    model.fit(Dataset.construct(interactions))


def main() -> None:
    """Serve the peer named in the case, or say that it is not installed."""
    os.dup2(2, 1)  # whatever else is printed is no answer
    try:
        import pytorch_lightning  # noqa: F401
        import rectools.models  # noqa: F401
    except ImportError as error:
        answer({"absent": f"{error}; pip install 'rectools[torch]' into a Python of its own: --peer-python"})
        return
    serve(json.loads(sys.argv[1]))


if __name__ == "__main__":
    main()
