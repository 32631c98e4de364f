import os
import subprocess
import sys

import pytest
from data_helpers import words
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from redline.data.tokenizer import END_OF_TEXT, check_vocab_size, end_of_text_id, train_tokenizer
from redline.errors import UserError

TRAINED = train_tokenizer([words(1, 2000)], 400)


def test_the_vocabulary_has_the_size_asked_for_where_the_text_allows() -> None:
    assert TRAINED.get_vocab_size() == 400
    assert train_tokenizer(["ab"], 400).get_vocab_size() == 257  # every byte, and "ab"
    assert train_tokenizer([words(1, 2000)], 256).get_vocab_size() == 256


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_from_its_tokens(text: str) -> None:
    assert TRAINED.decode(TRAINED.encode(text).ids, skip_special_tokens=False) == text


def test_the_end_of_text_is_one_token_of_the_alphabet() -> None:
    assert TRAINED.decode([end_of_text_id(TRAINED)]) == END_OF_TEXT
    assert end_of_text_id(TRAINED) < 256


def test_another_process_with_another_number_of_threads_trains_the_same_tokenizer() -> None:
    code = (
        "from data_helpers import words; from redline.data.tokenizer import train_tokenizer;"
        "print(train_tokenizer([words(1, 2000)], 400).to_str())"
    )
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert Tokenizer.from_str(child.stdout).to_str() == TRAINED.to_str()


def test_a_vocabulary_below_the_alphabet_is_the_users_mistake() -> None:
    check_vocab_size(256)
    with pytest.raises(UserError, match=r"^model\.vocab_size=255: .*allowed: 256 or more$"):
        check_vocab_size(255)
