"""The COCO tokenisation. Every expected line is what the Java tokeniser itself gave."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captionkit.metrics import ptb
from captionkit.metrics.ptb import ptb_tokenize

CASES = {
    # punctuation and quotes are dropped
    'A "stop" sign, isn\'t it?': "a stop sign is n't it",
    "“smart” ‘quotes’ «and» ``these''": "smart quotes and these",
    "wait... what?! no -- yes – maybe—so": "wait what ?! no yes maybe so",
    # brackets stay, by their names
    "a (small) [red] {box}": "a -lrb- small -rrb- -lsb- red -rsb- -lcb- box -rcb-",
    # contractions are split
    "don't can't won't they've I'm you're he'd she'll it's": (
        "do n't ca n't wo n't they 've i 'm you 're he 'd she 'll it 's"
    ),
    "don’t it’s n`t": "do n't it 's n`t",
    "I cannot, gonna, wanna, gimme, lemme, gotta": "i can not gon na wan na gim me lem me got ta",
    "'tis 'twas 'til 'em rock 'n' roll o'clock y'all": (
        "'t is 't was 'til 'em rock 'n' roll o'clock y' all"
    ),
    "the dogs' tails, James's bike": "the dogs tails james 's bike",
    "O'Neil d'Angelo ma'am ol' c'mon": "o'neil d'angelo ma'am ol' c'mon",
    # hyphens and slashes keep words together
    "a twin-hulled, 20-year-old x-ray - and/or more": "a twin-hulled 20-year-old x-ray and/or more",
    "-a a- a--b a-----b": "a a a b a ----- b",
    # abbreviations keep their full stop
    "Mr. Smith of Acme Inc. in the U.S. at 5 p.m.": "mr. smith of acme inc. in the u.s. at 5 p.m.",
    "No. 5 but no. etc. e.g. Ph.D.": "no. 5 but no etc. e.g. ph.d.",
    "Plan B. The end of plan B.": "plan b the end of plan b.",
    "stop. go": "stop go",
    "a word., then": "a word. then",
    # numbers, money, fractions
    "10,000 3.14 -5 +5 1990s '90s 7:30pm 10:30am": "10,000 3.14 -5 +5 1990s '90s 7:30 pm 10:30 am",
    "$5.00 £3 €4 ¢6 US$7 5% #5": "$ 5.00 # 3 $ 4 cents 6 us$ 7 5 % # 5",
    "½ ⅓ ⅛ 1/2 3-1/2": "1/2 1/3 ⅛ 1/2 3-1/2",
    "1 1/2 cups": "1\u00a01/2 cups",
    "(555) 555-1212": "-lrb-555-rrb-\u00a0555-1212",
    "12/25/2012 24/7 5'10\"": "12/25/2012 24/7 5 10",
    # addresses, tags, markup, smileys
    "foo@bar.com http://x.com/a?b. www.foo.org @user #tag": (
        "foo@bar.com http://x.com/a?b www.foo.org @user #tag"
    ),
    '<b>bold</b> <a href="x y"> 2 < 3 &amp; &lt;': (
        '<b> bold </b> <a\u00a0href="x\u00a0y"> 2 < 3 & <'
    ),
    ":) ;-) :D ^_^ <3": ":-rrb- ;--rrb- :d ^_^ < 3",
    "AT&T a&b C++ C# cat.jpg": "at&t a & b c++ c# cat.jpg",
    # other scripts are kept, emoji and what was not known in 2013 dropped
    "ÉTÉ naïve привет 日本語 ﬁ": "été naïve привет 日本語 ﬁ",
    "a😀b 👍🏽 ☀ ❤\ufe0f ©": "a b ☀ ❤ ©",
    "co\u00adop soft\u00adhyphen \u00ad": "coop softhyphen",
    "zero\u200bwidth no\u00a0break": "zero width no break",
    "two\nlines\rand\u2028more": "two lines and more",
    "": "",
    " \t ": "",
    "...": "",
}


@pytest.mark.parametrize(("text", "expected"), CASES.items())
def test_cases(text, expected):
    assert ptb_tokenize(text) == expected


@given(st.text())
def test_any_text_has_tokens_in_lower_case_without_spaces_around(text):
    tokens = ptb_tokenize(text)
    assert tokens == tokens.strip(" ")
    assert all(token and token not in ptb._PUNCTUATION for token in tokens.split(" ")) or not tokens


WORDS = (
    "the dog's cats' isn't twin-hulled U.S. Mr. can't (small) 10,000 3.5 and/or cannot £5 'em "
    "x@y.com café 日本 [b] 20-year-old etc. p.m. 50% 1990s '90s gonna"
)
words = st.sampled_from(WORDS.split())
ends = st.sampled_from(["", ".", ",", "!", "?", ";", "...", '"'])
sentences = st.lists(st.tuples(words, ends).map("".join), max_size=8).map(" ".join)


@given(sentences)
def test_tokens_are_left_alone(text):
    once = ptb_tokenize(text)
    assert ptb_tokenize(once) == once


@given(st.text(st.sampled_from("abLT ,;:!?\"'-s."), max_size=30) | sentences)
def test_the_short_way_for_simple_texts_changes_nothing(text):
    assert ptb_tokenize(text) == ptb._coco_form(ptb._tokens(text.translate(ptb._LINE_ENDS)))


@pytest.mark.acceptance
def test_real_captions(shared_data):
    path = shared_data / "metrics" / "fakecap" / "ground_truth.json"
    rows = json.loads(path.read_text(encoding="utf-8"))
    pairs = [(row["caption_raw"], row["caption_ptb"]) for row in rows]
    for row in rows:
        pairs += zip(row["references_raw"], row["references_ptb"], strict=True)
    assert len(pairs) > 3000
    different = [(raw, ours) for raw, theirs in pairs if (ours := ptb_tokenize(raw)) != theirs]
    assert different == []
