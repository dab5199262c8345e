import numpy as np
import pytest

from udh_jax import extras
from udh_jax.data.words import cut, indicators, make_vocabulary
from udh_jax.errors import InputError


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("Nike Women's T-Shirt, 3.5kg!", ["nike", "women's", "t", "shirt", "3.5kg"]),
    ("红色连衣裙和蓝色牛仔裤", ["红色", "连", "衣裙", "和", "蓝色", "牛仔", "裤"]),
    ("日本語のテキスト", ["日本語", "の", "テキスト"]),
    ("นี่คือประเทศไทย", ["นี่", "คือ", "ประเทศไทย"]),
    ("STRASSE Straße", ["strasse", "strasse"]),
    ("\ufb01n E\u0301lan \u00c9LAN", ["fin", "élan", "élan"]),
    ("— … 😀 / \n\t", []),
    ("cut emoji \ud83d", ["cut", "emoji"]),
    ("\ud83d\ude00 one\udcfftwo", ["one", "two"]),
    ("", []),
  ],
)
def test_texts_of_any_script_are_cut_and_folded(text, words):
  assert cut(text) == words


def test_a_folded_text_is_cut_as_the_text_itself():
  for text in ("İstanbul ǅ ΑΣ. Ŀ", "ﬀ Ⅻ ½ １２"):
    assert cut(" ".join(cut(text))) == cut(text)


def test_missing_icu_names_the_extra(monkeypatch):
  def missing(name):
    raise ModuleNotFoundError(name=name)

  monkeypatch.setattr(extras.importlib, "import_module", missing)
  with pytest.raises(InputError, match=r"icu4py.breakers is not installed; .*udh_jax\[pairs\]"):
    cut("a b")


def test_a_vocabulary_counts_texts_and_not_places():
  texts = [["b", "b", "b"], ["a", "c"], ["a", "c"], ["c", "d"]]
  found = make_vocabulary(texts, min_count=2, max_words=9)
  assert found.words == ["c", "a"] and found.found == 4
  assert found.covered == pytest.approx(5 / 9)
  assert make_vocabulary(texts, min_count=1, max_words=3).words == ["c", "a", "b"]
  with pytest.raises(InputError, match=r"in 4 of the 4 .* most frequent one is in 3.*min_word"):
    make_vocabulary(texts, min_count=4, max_words=9)
  with pytest.raises(InputError, match="most frequent one is in 0"):
    make_vocabulary([], min_count=1, max_words=9)


def test_indicators_say_which_words_a_text_has():
  found = indicators([["b", "x", "b"], [], ["a", "b"]], ["a", "b"])
  assert found.dtype == np.bool_ and found.tolist() == [[False, True], [False, False], [True, True]]
  assert indicators([], ["a"]).shape == (0, 1)
