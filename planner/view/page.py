"""The report as HTML: values in, text out. Pure but for the template that ships beside it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from planner.model import Service
from planner.record import TickRecord
from planner.view.cards import Card
from planner.view.decision_rows import DecisionRow, decision_rows
from planner.view.figures import Picture
from planner.view.notation import milliseconds, moment, share

VERDICTS = {None: "", True: "met", False: "missed"}


@dataclass(frozen=True, slots=True)
class Page:
    """All that stands on the page."""

    service: Service
    trace_name: str
    cards: Sequence[Card]
    verdict: str
    pictures: Sequence[Picture]
    records: Sequence[TickRecord]
    notes: Sequence[str] = ()

    def html(self) -> str:
        """Return the page with its scripts and styles inside."""
        from plotly.offline import get_plotlyjs

        rows, dropped = decision_rows(self.records)
        template = Template((files("planner.view") / "report.html").read_text(encoding="utf-8"))
        return template.substitute(
            title=escape(f"{self.service.key.name} · {self.trace_name}"),
            service=escape(str(self.service.key)),
            trace=escape(self.trace_name),
            promise=escape(_promise(self.service)),
            verdict=escape(self.verdict),
            verdict_class=VERDICTS[self.cards[0].is_met],
            cards="\n".join(map(_card, self.cards)),
            pictures="\n".join(map(_picture, self.pictures)),
            rows="\n".join(map(_row, rows)),
            dropped=f"{dropped:,} quiet ticks are left out." if dropped else "",
            notes="\n".join(f"<p>{escape(note)}</p>" for note in self.notes),
            figures=_script_json([_figure(picture) for picture in self.pictures]),
            plotly=get_plotlyjs(),
        )


def _promise(service: Service) -> str:
    sla = service.sla
    return (
        f"{share(sla.attainment_ratio)} of requests with TTFT at most {milliseconds(sla.ttft_s)} "
        f"and ITL at most {milliseconds(sla.itl_s)}"
    )


def _card(card: Card) -> str:
    return (
        f'<div class="card {VERDICTS[card.is_met]}"><dt>{escape(card.label)}</dt>'
        f"<dd>{escape(card.value)}</dd><p>{escape(card.note)}</p></div>"
    )


def _picture(picture: Picture) -> str:
    return (
        f'<section class="picture" id="about-{escape(picture.key)}">'
        f"<h2>{escape(picture.heading)}</h2><p>{escape(picture.caption)}</p>"
        f'<div class="plot" id="{escape(picture.key)}" role="img" '
        f'aria-label="{escape(picture.heading)}"></div></section>'
    )


def _row(row: DecisionRow) -> str:
    reasons = "".join(
        f"<li><b>{escape(code)}</b> {escape(message)}</li>" for code, message in row.reasons
    )
    return (
        f'<tr data-kind="{row.kind}"><td>{moment(row.at_s)}</td><td>{row.kind}</td>'
        f"<td>{escape(row.sentence)}</td><td><ul>{reasons}</ul></td></tr>"
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
