"""One object says how networks are applied; what calls take by keyword are its fields."""

from dataclasses import fields

import pytest

from msa2net.errors import ConfigError
from msa2net.options import InferenceKeywords, InferenceOptions


def test_keywords_are_the_fields():
    options, keywords = fields(InferenceOptions), InferenceKeywords.__annotations__
    assert {one.name: one.type for one in options} == keywords


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"mode": "stretch"}, "there is no mode 'stretch'; use resize or sliding"),
        ({"precision": "int8"}, "there is no precision 'int8'; use float32 or bfloat16"),
        ({"overlap": 1.0}, "windows cannot overlap by 1.0; use 0 or more, below 1"),
        ({"batch_slices": 0}, "a batch of 0 slices is none; use 1 or more"),
        ({"threads": 0}, "0 threads are none; use 1 or more"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_said(keywords, said):
    with pytest.raises(ConfigError, match=said):
        InferenceOptions(**keywords)
