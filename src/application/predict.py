"""Use case: answer many independent prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from attrs import evolve, field, frozen

from glm3.application.dealt_work import deal_out
from glm3.domain.conversation import Reply
from glm3.domain.decoding import generate
from glm3.domain.errors import UsageError
from glm3.domain.generation import GenerationConfig
from glm3.domain.ports.communicator import Communicator
from glm3.domain.ports.model import LanguageModel
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.prompt import PromptBuilder
from glm3.domain.response import parse_response
from glm3.domain.template import parse_prompt

__all__ = ["PredictRequest", "Prediction", "predict", "predict_together", "require_prompts"]


def _as_texts(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(texts)


@frozen(kw_only=True)
class PredictRequest:
    """Prompts to answer, ``batch_size`` of them together.

    A prompt is the text of a user's turn, or a written-out template ``[gMASK]sop<|user|> ...``, which is
    read and not wrapped again. The model's own stop ids end an answer unless ``options`` names others.
    """

    prompts: tuple[str, ...] = field(converter=_as_texts)
    options: GenerationConfig = GenerationConfig()
    batch_size: int = 1


@frozen
class Prediction:
    """One answer.

    ``full_text`` is prompt and answer decoded together, markers included, as MindFormers prints it.
    """

    prompt: str
    reply: Reply
    full_text: str


def require_prompts(prompts: Sequence[str]) -> None:
    """Check that there is something to answer, and something in each of it.

    Raises:
        UsageError: there are no prompts, or one is blank.
    """
    if not prompts:
        raise UsageError("nothing to predict", expected="at least one prompt")
    for number, text in enumerate(prompts, 1):
        if not text.strip():
            raise UsageError(
                "the prompt is empty",
                field=f"prompt {number} of {len(prompts)}",
                expected="text",
                found=repr(text),
                hint="write a prompt there, or leave it out",
            )


def predict(
    request: PredictRequest,
    model: LanguageModel,
    tokenizer: Tokenizer,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Prediction]:
    """Yield one prediction a prompt, in order; ``progress`` is told how many of how many are done.

    Raises:
        UsageError: there are no prompts, one is blank, or the batch size is below 1.
        ConversationError: a written-out template is malformed.
        ContextLengthError: a prompt leaves no room for an answer.
    """
    require_prompts(request.prompts)
    if request.batch_size < 1:
        raise UsageError("no such batch size", expected="at least 1", found=request.batch_size)
    builder = PromptBuilder(tokenizer)
    prompts = [builder.build(parse_prompt(text)) for text in request.prompts]
    return _predict(request, model, tokenizer, prompts, progress)


def predict_together(
    request: PredictRequest,
    model: LanguageModel,
    tokenizer: Tokenizer,
    communicator: Communicator,
    tell: Callable[[Prediction], Any],
) -> list[Any]:
    """Return what ``tell`` says of each prediction, in order, on every rank; ranks share the batches out.

    ``tell`` gives plain values, as JSON has them.

    Raises:
        UsageError, ConversationError, ContextLengthError: as :func:`predict`.
        CommunicationError: a rank ended, or did not come in time.
    """
    predict(request, model, tokenizer)  # refuses on every rank what it would refuse on one

    def answer(_: int, prompts: tuple[str, ...]) -> list[Any]:
        return list(map(tell, predict(evolve(request, prompts=prompts), model, tokenizer)))

    size = request.batch_size
    batches = [request.prompts[start : start + size] for start in range(0, len(request.prompts), size)]
    return [told for batch in deal_out(communicator, batches, answer) for told in batch]


def _predict(
    request: PredictRequest,
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    progress: Callable[[int, int], None] | None,
) -> Iterator[Prediction]:
    options = request.options.for_vocabulary(tokenizer.special_tokens)
    for start in range(0, len(prompts), request.batch_size):
        batch = prompts[start : start + request.batch_size]
        texts = request.prompts[start : start + request.batch_size]
        for text, result in zip(texts, generate(model, batch, options), strict=True):
            reply = parse_response(result.new_ids, tokenizer, result.finish_reason)
            ended = result.ids[-1] in options.stop_ids
            full_text = tokenizer.decode(result.ids[:-1] if ended else result.ids)
            yield Prediction(text, evolve(reply, usage=result.usage), full_text)
        if progress is not None:
            progress(min(start + len(batch), len(prompts)), len(prompts))
