"""Words behind a number: units, which change nothing, and words that change it."""

from __future__ import annotations

import re

_SHORT = """
    m g s l L h J N W V A K C F mm cm dm km kms nm um μm ft yd yds mi ha sq cu cc px au ly
    mg kg kgs lb lbs oz ml mL cl cL dl dL kl kL qt pt gal cup ms ns μs min sec hr hrs yr yrs mo mos wk wks day
    Hz kHz MHz GHz kJ MJ eV kN kW MW GW Wh kWh mV kV mA Ω kΩ Pa kPa MPa atm bar psi mol cal kB KB MB GB TB dB
    kph mph kmh rpm fps bps ppm deg rad USD EUR GBP INR JPY CNY Rs ct cts pts pcs
"""
SHORT_UNITS = frozenset(_SHORT.split())
"""Units of at most three letters. Other letters, as in 2xy, are variables, except for words behind a space (*men*)."""

_LONG = """
    dollar cent euro pound yen rupee yuan percent degree radian times
    second minute hour day week month year decade century centuries
    inch inches foot feet yard mile meter metre kilometer kilometre centimeter centimetre millimeter millimetre
    gram kilogram milligram ounce ton tonne liter litre milliliter millilitre gallon quart pint cup teaspoon tablespoon
    unit square cubic joule watt volt ampere newton hertz
"""
LONG_UNITS = frozenset(_LONG.split())
"""Units that may stand behind a number in words. *Seven Dwarfs* is a name, so other words may not."""

_CHANGING = {
    "half of the day, era, variables, constants": "am pm ad bc bce ce i x y z pi",
    "functions": "sin cos tan cot sec csc log ln exp root squared cubed factorial mod modulo",
    "signs": "plus minus negative positive",
    "other numbers": "pair pairs gross score lakh lakhs crore crores bn mn mil point times hundredths",
    "parts": "half halves third thirds quarter quarters fourth fourths fifth fifths sixth sixths tenth tenths",
    "words between numbers": "and or an in is of to than then over through thru vs by from at with without",
    "denials": "but except not no non never",
    "amounts": "less more few fewer fewest many most least too extra enough",
    "comparisons": """
        higher lower greater smaller larger bigger better worse taller shorter longer older younger faster slower
        heavier lighter closer farther further deeper
    """,
    "changes": """
        increase increases increased decrease decreases decreased rise fall drop growth decline reduction
        loss losses lost gain gains discount deficit surplus debt owed due off
    """,
    "places": "above below under up down right ahead behind",
    "order in time": "before after ago earlier later early late",
    "directions": """
        forward backward forwards backwards upward downward upwards downwards clockwise counterclockwise anticlockwise
        north south east west northeast northwest southeast southwest northward southward eastward westward
    """,
    "months": "january february march april may june july august september october november december",
    "days": "monday tuesday wednesday thursday friday saturday sunday",
}
NOT_UNITS = frozenset(" ".join(_CHANGING.values()).split())
"""Words that change the number before them, so they are no units. *Left* and *profit* are no such words: five apples
left are five, and their opposites are here."""


_RANGE = re.compile(r"[\d.,]+\s*-\s*[\d.,]+")
"""5-10 minutes are no subtraction."""
_BEHIND_FORMULA = re.compile(r"(?P<formula>.*?[\w})])(?P<words>(?:\s+[A-Za-z]{2,})+)(?:\s*\^\s*\{?\d\}?)?", re.DOTALL)


def without_unit(formula: str) -> str:
    r"""The formula without a unit of two letters or more behind it: ``16\pi cm^2`` is ``16\pi``."""
    found = _BEHIND_FORMULA.fullmatch(formula)
    if (
        found
        and not _RANGE.fullmatch(found["formula"])
        and all(word in SHORT_UNITS or is_long_unit(word) or word == "per" for word in found["words"].split())
    ):
        return found["formula"]
    return formula


def is_long_unit(word: str) -> bool:
    """Whether this is a unit in full, or its plural."""
    return word in LONG_UNITS or word.removesuffix("s") in LONG_UNITS
