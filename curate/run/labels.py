"""Labels for the clips that a rule of `keep:` drops. A rule string states what is kept (`text_area <= 0.07`); a label states the opposite."""

import re

OPERATOR = re.compile(r" (>=|<=|is) ")


def dropped_label(rule: str, *, nulls: bool = False) -> str:
    """The condition that a dropped clip meets, from a rule string of `curate.run.select.describe`.

    `motion >= p25` becomes `motion < p25`, `fps >= 10 and fps <= 60` becomes `fps < 10 or fps > 60`, `is_slideshow is False` becomes
    `is_slideshow is True`, `shot is wide or close` becomes `shot is neither wide nor close`. A string of another form is returned unchanged.

    Args:
        rule: The rule string.
        nulls: Whether the rule also drops clips without a value (null fails every rule); the label then names them.
    """
    column = OPERATOR.split(rule)[0]
    name = re.escape(column)
    above, below, values = rf"{name} >= (?P<above>\S+)", rf"{name} <= (?P<below>\S+)", rf"{name} is (?P<values>.*)"
    parts = re.fullmatch(f"(?:{above})?(?: and )?(?:{below})?(?: and )?(?:{values})?", rule, re.DOTALL)
    if parts is None:
        return rule
    conditions = []
    if parts["above"] is not None:
        conditions.append(f"{column} < {parts['above']}")
    if parts["below"] is not None:
        conditions.append(f"{column} > {parts['below']}")
    if parts["values"] is not None:
        conditions.append(f"{column} is {_other_than(parts['values'].split(' or '))}")
    if nulls:
        conditions.append("no value")
    return " or ".join(conditions)


def _other_than(kept: list[str]) -> str:
    """The condition that a value differs from all of these, in words."""
    if len(kept) > 1:
        return f"neither {', '.join(kept[:-1])} nor {kept[-1]}"
    return {"True": "False", "False": "True"}.get(kept[0], f"not {kept[0]}")
