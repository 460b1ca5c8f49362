"""Our tokenisation against the Java one that the pycocoevalcap wheel carries."""

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from captionkit.metrics.ptb import ptb_tokenize

pytestmark = pytest.mark.oracle

LINES = 12_000

PUNCTUATION = [
    *["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-"],
    *[".", "?", "!", ",", ":", "-", "--", "...", ";"],
]


def words(table: str) -> list[str]:
    return table.split()


WORDS = words(
    """
    a b A B I s t o O cat dog man the The It don't can't isn't cannot Cannot gonna U.S U.S. u.s. Mr.
    Mr Dr. St. Inc. etc. etc e.g. i.e. a.m. p.m. Jan. No. no. vs. Ave. ft. oz. Ph.D. Co. Corp. Jr.
    20-year-old x-ray mid-1990s O'Neil o'clock l'eau rock'n'roll 'n' 'em 'til 'tis 'twas ma'am y'all
    ol' d' somethin' li'l nor'easter c'mon AT&T R&D a/b and/or w/o C++ c# .NET file.txt a_b x.html
    """
)
QUOTES = words(
    """
    ' " `` '' ` ‘ ’ “ ” „ « » ‹ ›
    's 'S 't 'd 'll 're 've 'm n't N'T n’t ’s &quot; &apos;
    """
)
SIGNS = words(
    """
    . .. ... .... , ; : ! ? !! ?! ( ) [ ] { } - -- --- ----- – — … < > / \\ | @ # $ % ^ & * + = ~ _
    &amp; &lt; &gt; &nbsp; &mdash; &#39; <b> </b> <br/> <a:b> :) :-) ;) :( :D =) ^_^ -_- <3 ° © ™ •
    """
)
NUMBERS = words(
    """
    0 1 2 5 10 12 50 100 1000 1990 1990s '90s 90's 1st 2nd 3.5 .5 1,000 1/2 3/4 1-1/2 10:30 555 1212
    +1 -5 5th 5' 6" £ € ¥ ¢ US$ $ % ½ ¼ ⅓ ⅛ ² 12/25/2012 24/7 (555) 555-1212 3⁄4
    """
)
ADDRESSES = words(
    """
    http://a.com https://x.y/z www.foo.com foo.com foo.org/bar a@b.com @foo #foo <a href="x"> ?q=1
    """
)
SPACES = ["\u00a0", "\u00ad", "\u2009", "\u3000", "\u200b", "\t", "  "]


@pytest.fixture(scope="module")
def java_tokenizer(tmp_path_factory):
    """From lines to what the COCO evaluation makes of each."""
    package = pytest.importorskip("pycocoevalcap.tokenizer.ptbtokenizer")
    if shutil.which("java") is None:
        pytest.skip("there is no Java runtime")
    jar = Path(package.__file__).parent / package.STANFORD_CORENLP_3_4_1_JAR
    file = tmp_path_factory.mktemp("oracle") / "lines.txt"

    def tokenize(lines: list[str]) -> list[str]:
        # a line between, for what begins the next line may change the end of the one before
        file.write_text("".join(f"{line}\nx\n" for line in lines), encoding="utf-8", newline="\n")
        command = ["java", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
        run = subprocess.run(
            [*command, "-preserveLines", "-lowerCase", str(file)], capture_output=True, check=True
        )
        rows = run.stdout.decode("utf-8").split("\n")[:-1]
        assert len(rows) == 2 * len(lines)
        return [
            " ".join(token for token in row.rstrip().split(" ") if token not in PUNCTUATION)
            for row in rows[::2]
        ]

    return tokenize


def joined(rng: random.Random, parts: list[str]) -> str:
    return "".join(rng.choice(parts) + " " * (rng.random() < 0.4) for _ in range(rng.randint(1, 9)))


def generated(kind: str, rng: random.Random) -> str:
    if kind == "words":
        return joined(rng, WORDS + QUOTES[:4] + SIGNS[:14])
    if kind == "quotes":
        return joined(rng, QUOTES + WORDS)
    if kind == "numbers":
        return joined(rng, NUMBERS + SIGNS[:12] + ["a", "in", "th", "pm"])
    if kind == "signs":
        return joined(rng, SIGNS + WORDS[:12])
    if kind == "addresses":
        return joined(rng, ADDRESSES + SIGNS + WORDS[:9])
    if kind == "everything":
        return joined(rng, WORDS + QUOTES + SIGNS + NUMBERS + ADDRESSES + SPACES)
    if kind == "ascii":
        return "".join(chr(rng.randrange(32, 127)) for _ in range(rng.randint(1, 16)))
    planes = [(0xA0, 0x2100), (0xA0, 0xD7FF), (0xF900, 0xFFFF), (0x1F000, 0x1FFFF), (0x7F, 0x100)]
    text = [chr(rng.randrange(*rng.choice(planes))) for _ in range(rng.randint(1, 9))]
    text += rng.choices("ab1.,-'’& /@<>:", k=rng.randint(0, 7))
    rng.shuffle(text)
    # ends of lines to Java; ours turns them into spaces
    return "".join(text).translate(dict.fromkeys([0x2028, 0x2029], "."))


@pytest.mark.parametrize(
    "kind", ["words", "quotes", "numbers", "signs", "addresses", "everything", "ascii", "unicode"]
)
def test_generated_text(java_tokenizer, kind):
    rng = random.Random(kind)
    lines = [generated(kind, rng) for _ in range(LINES)]
    expected = java_tokenizer(lines)
    different = [
        (line, theirs, ours)
        for line, theirs in zip(lines, expected)
        if (ours := ptb_tokenize(line)) != theirs
    ]
    assert different == []


def test_every_character_of_the_basic_plane(java_tokenizer):
    points = [c for c in range(0x20, 0x10000) if not 0xD800 <= c < 0xE000]
    points = [c for c in points if c not in (0x2028, 0x2029)]
    lines = [f"a{chr(c)}b 5{chr(c)}5 {chr(c)}" for c in points]
    different = [
        (line, theirs, ours)
        for line, theirs in zip(lines, java_tokenizer(lines))
        if (ours := ptb_tokenize(line)) != theirs
    ]
    assert different == []


def test_what_is_not_idempotent_here_is_not_there(java_tokenizer):
    rng = random.Random(0)
    lines = [generated("everything", rng) for _ in range(LINES // 4)]
    once = [ptb_tokenize(line) for line in lines]
    assert [ptb_tokenize(text) for text in once] == java_tokenizer(once)
