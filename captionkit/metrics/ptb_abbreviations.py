"""The abbreviations whose full stop the COCO evaluation's tokeniser keeps, as regular expressions.

Found by asking it for every word of a large dictionary and every string of up to four letters, in
all mixtures of case and before different characters.
"""

from __future__ import annotations


def _any_of(words: str) -> str:
    """Words in any case; of one that starts with a capital that letter is fixed."""
    longest_first = sorted(words.split(), key=len, reverse=True)
    return "|".join(f"(?ai:{w})" if w.islower() else f"{w[0]}(?ai:{w[1:]})" for w in longest_first)


# Keep the full stop unless a longer token goes on after it. Those that are words as well only
# with a capital.
TITLES = _any_of(
    """
    adj adm adv alex assoc asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr drs
    elec ens ft gen gov govs hon insp invt jos lieut lt maj messrs mlle mme mr mrs ms msgr mt natl
    pfc ph pres prof profs pvt rep reps rev sen sens sfc sgt spc st ste supt treas vs wm
    """
)
TITLES += "|[mM][ft][gG]"

# Keep it also before another letter or digit ("Co.A").
NAMES = _any_of(
    """
    al ala apr ariz assn aug bancorp bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq
    est etc ext feb fla fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon
    mont neb nev nov oct okla penn plc rd rt sep sept seq sq sr sys tel tenn thu thurs tue tues
    univ va vt wed wis wisc wyo
    Ark Az Del Ill La Mass Miss Ore Pa Tex Wash
    """
)
NAMES += r"|[pP]{1,2}(?ai:t)[ye][sS]?|(?ai:(?:ed|ph)\.d)"

# Keep it only before a number ("no. 5").
BEFORE_NUMBERS = _any_of("art ca fig figs no nos op pp prop")

# After a single letter and a full stop, the start of a new sentence ("B. The").
SENTENCE_STARTS = _any_of(
    """
    A About According Additionally After An As At But Earlier He Her Here However If In It Last
    Many More Now Once One Other Our She Since So Some Such That The Their Then There These They
    This We What When While Yet You
    """
)
SENTENCE_STARTS += r"|M(?ai:[rs])\."
