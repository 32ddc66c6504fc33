"""A profile as one HTML page that holds all it needs. Pure but for the template beside it."""

import json
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from planner.profiling.region import Region, Targets, surfaces
from planner.view.figures import Picture
from planner.view.notation import milliseconds
from planner.view.profile_figures import (
    Lengths,
    itl_picture,
    map_picture,
    throughput_picture,
    ttft_picture,
)
from profiles import Profile


def profile_page(
    name: str,
    profile: Profile,
    targets: Targets,
    region: Region,
    lengths: tuple[ArrayLike, ArrayLike] | None,
    lines: Sequence[str],
) -> str:
    """Return the page.

    Parameters
    ----------
    name
        Of the profile, for the title.
    profile, targets, region
        What is drawn, what is asked for, and where it holds.
    lengths
        Prompt and output lengths of some traffic [tokens]; None: not drawn.
    lines
        Sentences of `profile_lines`: each begins with its topic and a colon.
    """
    from plotly.offline import get_plotlyjs

    pictures = list(profile_pictures(profile, targets, region, _lengths(lengths)))
    template = Template((files("planner.view") / "profile_page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(name),
        about=escape(_about(profile)),
        asked=escape(_asked(targets)),
        facts="\n".join(_facts(profile)),
        lines="\n".join(map(_line, lines)),
        pictures="\n".join(map(_picture, pictures)),
        figures=_script_json([_figure(picture) for picture in pictures]),
        plotly=get_plotlyjs(),
    )


def profile_pictures(
    profile: Profile, targets: Targets, region: Region, traffic: Lengths | None
) -> Iterator[Picture]:
    """Yield the pictures in reading order, of the roles that the profile has.

    Yields
    ------
    Picture
        One figure.
    """
    prefill, decode = surfaces(profile)
    if prefill is not None:
        yield ttft_picture(profile, prefill, targets, region, traffic)
    if decode is not None:
        yield itl_picture(profile, targets)
        yield map_picture(profile, decode, targets, traffic)
        if targets.itl_s is not None:
            yield throughput_picture(decode, targets)


def _lengths(lengths: tuple[ArrayLike, ArrayLike] | None) -> Lengths | None:
    if lengths is None:
        return None
    isl, osl = (np.asarray(column, dtype=np.float64) for column in lengths)
    return Lengths(isl, isl + osl / 2.0)


def _about(profile: Profile) -> str:
    made = profile.provenance
    gpus = f"{made.gpus_per_replica} × {made.gpu}" if made.gpus_per_replica else made.gpu
    engine = " ".join(part for part in (made.engine, made.engine_version) if part)
    return ", ".join(part for part in (made.model, engine, gpus, made.how) if part)


def _asked(targets: Targets) -> str:
    parts = [
        f"{name} at most {milliseconds(value)}"
        for name, value in (("TTFT", targets.ttft_s), ("ITL", targets.itl_s))
        if value is not None
    ]
    return f"Asked: {' and '.join(parts)}." if parts else "No targets given: --ttft, --itl."


def _facts(profile: Profile) -> Iterator[str]:
    """Yield what is known of the engine, one row a fact.

    Yields
    ------
    str
        A row of the table.
    """
    made = profile.provenance.model_dump(by_alias=True, exclude_none=True)
    numbers = {
        "KV cache [tokens]": profile.kv_capacity_tokens,
        "most sequences": profile.max_sequences,
        "KV cache [B/token]": profile.kv_bytes_per_token,
        "KV reading [B/s]": profile.kv_read_bytes_per_s,
        "start-up [s]": profile.startup_s,
    }
    told = made | {key: f"{value:,.10g}" for key, value in numbers.items() if value is not None}
    for key, value in told.items():
        yield f"<tr><th>{escape(key)}</th><td>{escape(str(value))}</td></tr>"


def _line(line: str) -> str:
    topic, _, said = line.partition(": ")
    kind = topic if topic in {"odd", "outside"} else "said"
    return f'<li class="{kind}"><b>{escape(topic)}</b> {escape(said)}</li>'


def _picture(picture: Picture) -> str:
    return (
        f'<section class="picture"><h2>{escape(picture.heading)}</h2>'
        f"<p>{escape(picture.caption)}</p>"
        f'<div class="plot" id="{escape(picture.key)}" role="img" '
        f'aria-label="{escape(picture.heading)}"></div></section>'
    )


def _figure(picture: Picture) -> dict[str, Any]:
    """Return one figure as plain JSON values under its name in the page."""
    from plotly.io import to_json

    # The standard library's encoder always: plotly would take another if one is installed.
    drawn = json.loads(to_json(picture.figure, validate=False, engine="json"))
    return {"key": picture.key, "data": drawn["data"], "layout": drawn["layout"]}


def _script_json(value: Any) -> str:
    """Return JSON that can't end the script element it stands in."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True).replace("<", "\\u003c")
