"""An evaluation shared out among processes: each row ranked once, all of them judged together."""

from __future__ import annotations

from typing import Any

import torch
from recbole.evaluator import Collector

from recbole_kuaiformer.losses import processes

_OF_ROWS = ("rec.items", "rec.topk", "rec.meanrank", "rec.score", "data.label")


class GatheringCollector(Collector):
    """RecBole's collector; what it hands on is of all processes' rows, so each computes the whole result.

    RecBole's sampler repeats rows until every process has as many, and its trainer weighs each batch
    alike: with 45 users a hit rate of .0444 was reported as .0435. Coverage and the like cannot be
    averaged over processes at all.
    """

    data_struct: Any

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.rows_before = 0  # this process's first one, in the order of all
        self._is_shared_out = False

    def share_out(self, eval_data: Any) -> None:
        """Give each process a stretch of a RecBole dataloader's rows; all rows, where some would get none.

        Stretches, put together in the processes' order, are the rows in the order of one process.
        """
        world_size, number = processes.n_processes(), processes.number()
        n_rows = eval_data.sample_size
        self._is_shared_out = n_rows >= world_size > 1
        self.rows_before = number * n_rows // world_size if self._is_shared_out else 0
        if world_size > 1:
            end = (number + 1) * n_rows // world_size if self._is_shared_out else n_rows
            eval_data.batch_sampler.sampler = range(self.rows_before, end)

    def get_data_struct(self) -> Any:
        """RecBole's, after the results of all processes' rows were gathered."""
        if self._is_shared_out:
            for key in _OF_ROWS:
                if key in self.data_struct:
                    mine = self.data_struct[key].to(self.device)
                    self.data_struct.set(key, torch.cat(processes.of_all(mine)))
        return super().get_data_struct()
