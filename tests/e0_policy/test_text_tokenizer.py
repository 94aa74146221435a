from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from e0_policy.text_tokenizer import (
    PaliGemmaTokenizer,
    Prompt,
    TextTokenError,
    WordTokenizer,
    tokenizer_from_json,
)

INSTRUCTIONS = ["pick up the red cube", "push the red cube to the goal", "Open the drawer."]
STATE = np.array([-1.0, 0.0, 0.999])


@given(st.text(max_size=60), st.text(max_size=60))
def test_texts_share_ids_only_if_they_differ_in_case_or_space(a, b):
    tokenizer = WordTokenizer.fit(INSTRUCTIONS)
    same = "".join(a.lower().split()) == "".join(b.lower().split())
    assert same or tokenizer.encode(a) != tokenizer.encode(b)
    assert all(0 < i < tokenizer.vocabulary for i in tokenizer.encode(a))


def test_known_words_have_one_id_and_new_ones_are_spelled():
    tokenizer = WordTokenizer.fit(INSTRUCTIONS)
    assert len(tokenizer.encode("Pick up  the RED cube")) == 6
    assert tokenizer.encode("the") == [1, 258 + tokenizer.words.index("the")]
    assert tokenizer.encode("lid") == [1, *(2 + byte for byte in b" lid")]
    assert tokenizer_from_json(json.loads(json.dumps(tokenizer.to_json()))) == tokenizer


def test_a_small_vocabulary_keeps_the_frequent_words_and_its_special_tokens_apart():
    tokenizer = WordTokenizer.fit(INSTRUCTIONS, size=258 + 2 + 4, specials=4)
    assert tokenizer.words == ("cube", "the")
    specials = {tokenizer.special(i) for i in range(4)}
    assert specials == {260, 261, 262, 263} and not specials & set(tokenizer.encode("the cube"))
    with pytest.raises(TextTokenError, match="special token 4 of a vocabulary with 4"):
        tokenizer.special(4)
    with pytest.raises(TextTokenError, match="3 words and 4 special"):
        WordTokenizer(("a", "b", "c"), 258 + 6, 4)


def test_a_prompt_is_padded_and_never_cut():
    prompt = Prompt(WordTokenizer.fit(INSTRUCTIONS), 8)
    tokens, mask = prompt.encode("pick up the red cube", STATE)
    assert tokens.shape == mask.shape == (8,)
    assert mask.sum() == 6 and (tokens[~mask] == 0).all() and (tokens[mask] > 0).all()
    with pytest.raises(TextTokenError, match=r"prompt of \d+ tokens; the model takes 8"):
        prompt.encode("push the red cube to the goal and then open the drawer", STATE)
    with pytest.raises(TextTokenError, match="5000 characters; allowed are 4096"):
        prompt.encode("a" * 5000, STATE)


def test_proprioception_can_be_text():
    prompt = Prompt(WordTokenizer(), 96, proprioception=True)
    assert prompt.text("pick_up  it", STATE) == "Task: pick up it, State: 0 128 255;\nAction: "
    other = prompt.encode("pick up it", STATE + np.array([0.1, 0.0, 0.0]))
    assert (other[0] != prompt.encode("pick up it", STATE)[0]).any()


@given(st.lists(st.integers(0, 255), min_size=3, max_size=3), st.lists(st.integers(0, 255), min_size=3, max_size=3))
@example([1, 22, 5], [12, 2, 5])
def test_states_of_other_bins_have_other_ids(one, other):
    prompt = Prompt(WordTokenizer(), 96, proprioception=True, digits=3)
    ids, others = (prompt.encode("pick up it", (np.array(b) + 0.5) / 128 - 1)[0] for b in (one, other))
    assert (ids == others).all() == (one == other)
    assert "State: 001 022 005;" in prompt.text("pick up it", (np.array([1, 22, 5]) + 0.5) / 128 - 1)


@pytest.fixture(scope="module")
def piece_file(tmp_path_factory):
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(INSTRUCTIONS * 20),
        model_writer=model,
        vocab_size=300,
        model_type="bpe",
        byte_fallback=True,
        add_dummy_prefix=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path = tmp_path_factory.mktemp("text") / "tokenizer.model"
    path.write_bytes(model.getvalue())
    return path


def test_paligemma_reads_a_sentencepiece_file(piece_file):
    tokenizer = PaliGemmaTokenizer(piece_file)
    ids = tokenizer.encode("pick up the red cube\n")
    assert ids[0] == 2 and 1 < len(ids) < 22
    assert tokenizer.special(0) == 257152 - 129
    again = tokenizer_from_json(json.loads(json.dumps(tokenizer.to_json())), piece_file)
    assert again.encode("red") == tokenizer.encode("red")
    with pytest.raises(TextTokenError, match="fingerprint"):
        tokenizer_from_json({"kind": "paligemma", "fingerprint": "0"}, piece_file)


def test_paligemma_reads_a_tokenizers_file(tmp_path):
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    model = tokenizers.models.WordLevel({"<unk>": 3, "pick": 7, "cube": 9}, unk_token="<unk>")
    fast = tokenizers.Tokenizer(model)
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast.save(str(tmp_path / "tokenizer.json"))
    assert PaliGemmaTokenizer(tmp_path / "tokenizer.json").encode("pick cube lid") == [2, 7, 9, 3]


def test_wrong_tokenizer_files_are_refused(tmp_path):
    with pytest.raises(TextTokenError, match=r"no tokenizer file.*tokenizer\.json or tokenizer\.model"):
        PaliGemmaTokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.pkl").write_bytes(b"")
    with pytest.raises(TextTokenError, match=r"tokenizer\.json or tokenizer\.model"):
        PaliGemmaTokenizer(tmp_path / "tokenizer.pkl")
    with pytest.raises(TextTokenError, match="'bpe'; allowed are words, paligemma"):
        tokenizer_from_json({"kind": "bpe"})
    with pytest.raises(TextTokenError, match="uses PaliGemma's tokenizer; give"):
        tokenizer_from_json({"kind": "paligemma", "fingerprint": "0"})
