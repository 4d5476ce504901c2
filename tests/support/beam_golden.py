"""Cases of beam search, and what Hugging Face transformers answers to them.

``tests/golden/beam_search.json`` holds the answers of transformers 5.24.0. To make it anew, install torch and
``transformers>=5`` into an environment beside this one's packages and run
``PYTHONPATH=tests:typings python -m support.beam_golden tests/golden/beam_search.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from attrs import asdict, frozen

from glm3.adapters.memory.scripted_model import Scores, hashed_scores
from glm3.domain.generation import GenerationConfig


@frozen(kw_only=True)
class BeamCase:
    """Scores made of a seed, a prompt, and the options of the search.

    ``stop_bonus`` is added to the score of every stop id: the higher, the earlier beams end.
    """

    seed: int
    vocab_size: int
    scale: float
    stop_ids: tuple[int, ...]
    stop_bonus: float
    prompt: tuple[int, ...]
    num_beams: int
    length_penalty: float
    early_stopping: bool | str
    max_new_tokens: int
    min_new_tokens: int = 0
    repetition_penalty: float = 1.0

    @property
    def scores(self) -> Scores:
        plain = hashed_scores(self.vocab_size, seed=self.seed, scale=self.scale)

        def scores(ids: tuple[int, ...]) -> Sequence[float]:
            row = list(plain(ids))
            for token in self.stop_ids:
                row[token] += self.stop_bonus
            return row

        return scores

    @property
    def options(self) -> GenerationConfig:
        return GenerationConfig(
            num_beams=self.num_beams,
            length_penalty=self.length_penalty,
            early_stopping=self.early_stopping,
            max_new_tokens=self.max_new_tokens,
            min_new_tokens=self.min_new_tokens,
            repetition_penalty=self.repetition_penalty,
            stop_ids=self.stop_ids,
        )

    @property
    def key(self) -> str:
        """What the answer is filed under."""
        return json.dumps(list(asdict(self).values()), separators=(",", ":"))


def beam_cases() -> Iterator[BeamCase]:
    """Yield the cases: every combination of beams, penalty and early stopping over each set of scores."""
    sets: tuple[dict[str, Any], ...] = (
        {"vocab_size": 7, "scale": 1.0, "stop_ids": (2,), "stop_bonus": 1.0},
        {"vocab_size": 11, "scale": 2.0, "stop_ids": (0,), "stop_bonus": 3.0},
        {"vocab_size": 32, "scale": 1.0, "stop_ids": (5,), "stop_bonus": 2.5},
        {"vocab_size": 32, "scale": 0.5, "stop_ids": (1, 30, 31), "stop_bonus": 0.5},
        {"vocab_size": 11, "scale": 1.0, "stop_ids": (), "stop_bonus": 0.0},
        {"vocab_size": 11, "scale": 1.0, "stop_ids": (3,), "stop_bonus": 2.0, "min_new_tokens": 3},
        {"vocab_size": 11, "scale": 1.0, "stop_ids": (3,), "stop_bonus": 1.0, "repetition_penalty": 1.5},
    )
    combinations = product(enumerate(sets), (2, 3, 4, 5), (0.5, 1.0, 2.0, -1.0), (False, True, "never"))
    for (number, values), num_beams, length_penalty, early_stopping in combinations:
        yield BeamCase(
            seed=number,
            prompt=(4, 6, 1)[: 1 + number % 3],
            num_beams=num_beams,
            length_penalty=length_penalty,
            early_stopping=early_stopping,
            max_new_tokens=1 if number == 2 and num_beams == 5 else 6 + number % 4,
            **values,
        )


def transformers_answer(model: Any, case: BeamCase) -> tuple[list[int], float]:
    """Return the new ids of transformers' best beam and its normalised score."""
    import torch

    output = model.generate(
        torch.tensor([case.prompt]),
        num_beams=case.num_beams,
        length_penalty=case.length_penalty,
        early_stopping=case.early_stopping,
        max_new_tokens=case.max_new_tokens,
        min_new_tokens=case.min_new_tokens or None,
        repetition_penalty=case.repetition_penalty,
        eos_token_id=list(case.stop_ids) or None,
        pad_token_id=0,
        do_sample=False,
        use_cache=False,
        return_dict_in_generate=True,
        output_scores=True,
    )
    return output.sequences[0, len(case.prompt) :].tolist(), float(output.sequences_scores[0])


def scripted_transformer(case: BeamCase) -> Any:
    """Return a transformers model that scores as ``case`` does."""
    import torch
    from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
    from transformers.modeling_outputs import CausalLMOutput

    class Scripted(PreTrainedModel, GenerationMixin):
        config_class = PretrainedConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.anchor = torch.nn.Parameter(torch.zeros(1))
            self.post_init()

        def forward(self, input_ids: Any, **_: Any) -> Any:
            rows = [case.scores(tuple(ids)) for ids in input_ids.tolist()]
            return CausalLMOutput(logits=torch.tensor(rows, dtype=torch.float32)[:, None, :])

    return Scripted(PretrainedConfig(vocab_size=case.vocab_size)).eval()


def main(path: Path) -> None:
    """Write the answers to every case, one a line."""
    lines = []
    for case in beam_cases():
        ids, score = transformers_answer(scripted_transformer(case), case)
        lines.append(f"{json.dumps(case.key)}: {json.dumps([ids, round(score, 6)])}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
