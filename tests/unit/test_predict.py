from __future__ import annotations

import pytest

from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.adapters.memory.scripted_model import ScriptedModel, reply_scores
from glm3.application.predict import Prediction, PredictRequest, predict
from glm3.domain.conversation import FinishReason, Message, Role
from glm3.domain.errors import ContextLengthError, UsageError
from glm3.domain.generation import GenerationConfig
from glm3.domain.prompt import PromptBuilder

TOKENIZER = ByteTokenizer(dummy_prefix=True)
SPECIAL = TOKENIZER.special_tokens


def run(prompts: list[str], *, batch_size: int = 1, **options: int) -> list[Prediction]:
    reply = [*PromptBuilder(TOKENIZER).message_ids(Message(Role.ASSISTANT, "你好！"))[1:], SPECIAL.user]
    scores = reply_scores([reply], SPECIAL.vocab_size, start_id=SPECIAL.assistant, end_id=2)
    model = ScriptedModel(scores, SPECIAL.vocab_size, seq_length=100)
    request = PredictRequest(prompts=prompts, options=GenerationConfig(**options), batch_size=batch_size)
    return list(predict(request, model, TOKENIZER))


def test_the_model_cards_template_and_plain_text_are_the_same_prompt() -> None:
    plain, template = run(["你好", "[gMASK]sop<|user|> \n 你好<|assistant|> \n"])
    assert plain.full_text == template.full_text == "[gMASK]sop<|user|> \n 你好<|assistant|> \n 你好！"
    assert plain.reply.text == "你好！"
    assert plain.reply.finish_reason is FinishReason.STOP


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_change_nothing(batch_size: int) -> None:
    prompts = ["a", "bb", "ccc"]
    predictions = run(prompts, batch_size=batch_size)
    assert [prediction.prompt for prediction in predictions] == prompts
    assert {prediction.reply.text for prediction in predictions} == {"你好！"}


def test_an_answer_cut_by_its_limit_says_so() -> None:
    (prediction,) = run(["a"], max_new_tokens=5)
    assert prediction.reply.finish_reason is FinishReason.LENGTH
    assert prediction.reply.usage is not None
    assert prediction.reply.usage.completion_tokens == 5


def test_bad_requests_are_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match="nothing to predict"):
        run([])
    with pytest.raises(UsageError, match=r"prompt 2 of 3: the prompt is empty .*found ' \\n'"):
        run(["a", " \n", "b"])
    with pytest.raises(UsageError, match="batch size"):
        run(["a"], batch_size=0)
    with pytest.raises(ContextLengthError):
        run(["x" * 200])
