"""From the keys of a run to an evaluation: which rows, which lengths, which scores."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, frozen

from glm3.application.evaluate import EvaluateRequest, Evaluation, ScoreTexts, evaluate
from glm3.application.load_model import ModelLoader
from glm3.application.predict_source import predict_source
from glm3.application.row_sources import OpenPairs
from glm3.application.training_checks import require_vocabulary
from glm3.application.training_loop import EvaluationPolicy
from glm3.domain.errors import ConfigError
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.backend import LoadOptions
from glm3.domain.ports.communicator import Communicator
from glm3.domain.ports.model import LanguageModel, SupportsForward
from glm3.domain.ports.strategy_store import StrategyStore
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.run_config import RunConfig, check_for
from glm3.domain.run_config.data import DatasetConfig
from glm3.domain.training.encoding import PairEncoder, PairLayout

__all__ = ["EvaluateService", "evaluation_policy", "evaluation_request", "roomy"]

BEST_BY_GENERATION, BEST_BY_LOSS = "rouge-l", "loss"


def roomy(network: ModelConfig, dataset: DatasetConfig) -> ModelConfig:
    """Return the network with room for prompt, answer and its end.

    The model card's files evaluate 256 + 256 positions with networks of 192; ``seq_length`` is only a limit
    and changes no number.
    """
    needed = dataset.max_source_length + dataset.max_target_length + 1
    return network.evolve(seq_length=max(network.seq_length, needed))


def evaluation_request(
    config: RunConfig,
    tokenizer: Tokenizer,
    open_pairs: OpenPairs,
    *,
    layout: PairLayout = PairLayout.BARE,
    strict: bool = False,
) -> EvaluateRequest:
    """Read the evaluation rows of a run; ``metric`` decides what is computed on them.

    Raises:
        ConfigError: they are dialogues.
        InvalidInputError, MissingFileError: rows cannot be read, or there are none.
    """
    dataset = config.eval_dataset
    assert dataset is not None  # noqa: S101  # check_for saw to it
    if dataset.data_loader.type != "ADGenDataLoader":
        raise ConfigError(
            "an evaluation compares answers with references",
            field="eval_dataset.data_loader.type",
            expected="ADGenDataLoader",
            found=dataset.data_loader.type,
        )
    pairs = open_pairs(dataset, strict=strict)
    metrics = {metric.type for metric in config.metric} or {"ADGENMetric"}
    return EvaluateRequest(
        rows=pairs.rows,
        encoder=PairEncoder(
            tokenizer,
            dataset.max_source_length,
            dataset.max_target_length,
            layout,
            ignore_unknown=dataset.ignore_pad_token_for_loss,
        ),
        batch_size=config.runner_config.batch_size,
        max_new_tokens=dataset.max_target_length + 1,
        with_generation="ADGENMetric" in metrics,
        notes=tuple(pairs.notes),
    )


def evaluation_policy(
    config: RunConfig,
    request: EvaluateRequest,
    model: LanguageModel,
    tokenizer: Tokenizer,
    score_texts: ScoreTexts,
) -> EvaluationPolicy:
    """Return when to evaluate while training, and what makes a checkpoint the best."""

    def scores() -> dict[str, float]:
        return dict(evaluate(request, model, tokenizer, score_texts).scores)

    return EvaluationPolicy(
        evaluate=scores,
        score=BEST_BY_GENERATION if request.with_generation else BEST_BY_LOSS,
        smaller_is_better=not request.with_generation,
        every_steps=config.eval_step_interval,
        every_epochs=config.eval_epoch_interval,
    )


def _with_vocabulary(config: RunConfig, dataset: DatasetConfig) -> RunConfig:
    """Let the tokenizer of the rows be that of the model, where the file names one for the rows."""
    if dataset.tokenizer.vocab_file is None:
        return config
    return evolve(config, processor=evolve(config.processor, tokenizer=dataset.tokenizer))


@frozen(kw_only=True)
class EvaluateService:
    """Evaluate the model of a run on the rows of its ``eval_dataset``, which the ranks of a job share out."""

    models: ModelLoader
    strategies: StrategyStore
    open_pairs: OpenPairs
    score_texts: ScoreTexts
    communicator: Communicator

    def run(
        self,
        config: RunConfig,
        *,
        layout: PairLayout = PairLayout.BARE,
        strict: bool = False,
        progress: Callable[[int, int], None] | None = None,
        download: Callable[[str, int, int | None], None] | None = None,
    ) -> Evaluation:
        """Check everything, then load and score; ``load_checkpoint`` names the weights.

        Raises:
            Glm3Error: see :func:`glm3.application.predict_source.predict_source` and
                :func:`glm3.application.evaluate.evaluate`.
        """
        check_for(config, "eval")
        dataset = config.eval_dataset
        assert dataset is not None  # noqa: S101  # check_for saw to it
        named = _with_vocabulary(config, dataset)
        source = predict_source(
            named, self.models.sources, self.models.stores, self.strategies, download, self.communicator
        )
        tokenizer = self.models.tokenizer_of(source)
        require_vocabulary(tokenizer, source.config, source.tokenizer)
        request = evaluation_request(config, tokenizer, self.open_pairs, layout=layout, strict=strict)
        network = roomy(source.config, dataset)
        model = self.models.model_of(evolve(source, config=network), LoadOptions(seed=config.seed))
        if not isinstance(model, SupportsForward):
            request = evolve(request, with_perplexity=False)
        return evaluate(request, model, tokenizer, self.score_texts, progress, self.communicator)
