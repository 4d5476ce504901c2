"""Put the services of training and evaluation together; the container says of what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from attrs import evolve, frozen

from glm3.adapters.host.memory import peak_memory
from glm3.adapters.journal.curve import CurveJournal, require_matplotlib
from glm3.adapters.journal.files import FileJournal
from glm3.adapters.journal.tensorboard import TensorBoardJournal, require_tensorboard
from glm3.adapters.jsonl.reader import JsonRowReader
from glm3.adapters.metrics.text_scores import ChineseTextMetric
from glm3.adapters.yaml.model_folder import model_folder_yaml
from glm3.application.dataset import DatasetOpener
from glm3.application.encode_rows import ReportRows
from glm3.application.encoded_cache import RowEncoding
from glm3.application.evaluate import ScoreTexts
from glm3.application.evaluation_setup import EvaluateService
from glm3.application.finetune import FinetuneService
from glm3.application.journals import Journals
from glm3.application.load_model import ModelLoader
from glm3.application.training_preparation import TrainingPreparation
from glm3.domain.ports.backend import ModelBackend
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.ports.communicator import Communicator
from glm3.domain.ports.host import Host
from glm3.domain.ports.run_journal import RunJournal
from glm3.domain.ports.strategy_store import StrategyStore
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.training.encoding import PairLayout
from glm3.domain.training.metrics import mean_scores

__all__ = ["TrainingServices"]


@frozen(kw_only=True)
class TrainingServices:
    """The services over one set of adapters."""

    models: ModelLoader
    stores: Sequence[CheckpointStore]
    tokenizers: Callable[[Path], Tokenizer]
    backend: ModelBackend
    host: Host
    communicator: Communicator
    strategies: StrategyStore
    resources: Path
    cache: Path
    layout: PairLayout = PairLayout.BARE
    report_rows: ReportRows = lambda _done, _total: None

    def reporting(self, report_rows: ReportRows) -> TrainingServices:
        """Return the same services, which tell how many rows are encoded."""
        return evolve(self, report_rows=report_rows)

    def with_layout(self, layout: PairLayout) -> TrainingServices:
        """Return the same services over rows that are laid out otherwise."""
        return evolve(self, layout=layout)

    def preparation(self) -> TrainingPreparation:
        """Return what checks a run."""
        rows = self._rows()
        return TrainingPreparation(
            sources=self.models.sources,
            stores=self.stores,
            strategies=self.strategies,
            load_tokenizer=self.tokenizers,
            open_rows=rows.training,
            open_pairs=rows.pairs,
            score_texts=self._scores(),
            communicator=self.communicator,
            host=self.host,
        )

    def finetuning(self, *, tensorboard: bool = False, curve: bool = False) -> FinetuneService:
        """Return what trains; the extras need tensorboardX and matplotlib.

        Raises:
            BackendError: an extra's library is not installed.
        """
        if tensorboard:
            require_tensorboard()
        if curve:
            require_matplotlib()

        def open_journal(folder: Path, sink: bool) -> RunJournal:
            first = self.communicator.rank == 0  # metrics are the same on every rank
            journals: list[RunJournal] = [FileJournal(folder, sink=sink, metrics=first)]
            if tensorboard and first:
                journals.append(TensorBoardJournal(folder / "tensorboard"))
            if curve and first:
                journals.append(CurveJournal(folder / "loss.png"))
            return Journals(tuple(journals))

        return FinetuneService(
            preparation=self.preparation(),
            backend=self.backend,
            communicator=self.communicator,
            strategies=self.strategies,
            open_journal=open_journal,
            model_yaml=lambda config: model_folder_yaml(config).encode(),
            peak_memory=peak_memory,
        )

    def evaluation(self) -> EvaluateService:
        """Return what evaluates."""
        return EvaluateService(
            models=self.models,
            strategies=self.strategies,
            open_pairs=self._rows().pairs,
            score_texts=self._scores(),
            communicator=self.communicator,
        )

    def _rows(self) -> DatasetOpener:
        return DatasetOpener(
            encoding=RowEncoding(reader=JsonRowReader(), cache=self.cache / "rows"),
            builtin=self.resources / "data",
            layout=self.layout,
            report=self.report_rows,
        )

    def _scores(self) -> ScoreTexts:
        return partial(mean_scores, ChineseTextMetric(self.cache / "jieba"))
