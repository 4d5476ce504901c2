"""The metadata of packed weights: whatever is written reads back, and whatever else is there is told."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm3.domain.errors import CheckpointError
from glm3.domain.quantization.stored import PACKED_KEY, MatrixForm, PackedHeader, packed_specs
from support.quantization import SCHEMES

FEW = settings(max_examples=60, deadline=None)
FORMS = st.builds(
    MatrixForm, st.sampled_from(SCHEMES), st.tuples(st.integers(1, 10**6), st.integers(1, 10**6))
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@FEW
@given(st.builds(PackedHeader, st.sampled_from(SCHEMES), st.dictionaries(st.text(), FORMS, max_size=5)))
def test_a_header_reads_back(header):
    assert PackedHeader.from_metadata({"format": "ms", **header.to_metadata()}) == header


@FEW
@given(JSON, JSON, JSON)
def test_any_other_text_is_told(whole, scheme, weights):
    part = {"layout": 1, "scheme": scheme, "weights": weights if weights != {} else None}
    for text in (json.dumps(whole), json.dumps(part), json.dumps(whole)[:-1]):
        with pytest.raises(CheckpointError, match=r"glm3\.packed"):
            PackedHeader.from_metadata({PACKED_KEY: text})


def test_other_files_have_none():
    assert PackedHeader.from_metadata({"format": "pt"}) is None


@FEW
@given(FORMS)
def test_specs_count_the_bytes_of_the_scheme(form):
    specs = list(packed_specs("w", form))
    assert [spec.name for spec in specs][:2] == ["w.levels", "w.scales"]
    assert (len(specs) == 3) == (not form.scheme.symmetric)
    stored = sum(spec.nbytes for spec in specs) * 8
    assert stored >= form.scheme.bits * form.shape[0] * form.shape[1]
