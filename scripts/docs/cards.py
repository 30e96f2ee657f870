"""Method cards: of each yaml in ``configs/method``, what a reader wants to know before taking it.

Nothing stands here by hand. The yaml's comment says what the method is, what it needs (``It needs
…``) and where it fails (``It fails …``); the docstrings of its components have the formulas; the
costs are counted by training one weight.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import docstrings
import references
import torch
import yaml

from hpo_bench.core.hyperparameters import Hyperparameters
from hpo_bench.core.sgd import MomentumSGD
from hpo_bench.core.table import Table
from hpo_bench.core.update import State
from hpo_bench.running.trainer import Trainer
from hpo_bench.running.work import Work, work
from hpo_bench.settings.compose import compose
from hpo_bench.settings.parse import parse
from hpo_bench.settings.run import HYPERPARAMETERS, Settings
from hpo_bench.settings.yamls import configs_folder

DATASET = "diabetes"
MARKS = {"It needs": "needs", "It fails": "fails", "In the curves": "note", "DIFFERENCE": "note"}
SENTENCE = re.compile(r".+?(?<!\bal)\.(?=\s|$)", re.DOTALL)
FORMULA = re.compile(r"[=≈←⟨]")
GROUPS = {
    "one-pass": "Hyperparameters tuned during one training",
    "self-tuning": "Rules that find their own step size",
    "plain": "Fixed hyperparameters",
    "search": "Searches that train many times",
}


@dataclass(frozen=True)
class Comment:
    """What the comment at the top of a method's yaml says.

    Args:
        about: what the method is.
        needs, fails: sentences that begin with ``It needs`` and ``It fails``; may be empty.
        note: whatever else.
    """

    about: str
    needs: str = ""
    fails: str = ""
    note: str = ""

    @property
    def line(self) -> str:
        """Its first sentence."""
        found = SENTENCE.match(self.about)
        return found[0] if found else self.about

    @property
    def rest(self) -> str:
        """What follows it."""
        return self.about[len(self.line) :].strip()


@dataclass(frozen=True)
class Component:
    """Something that a method is made of.

    Args:
        role: what it is to the method.
        name: where it is imported from.
        formula: a block of text, or nothing.
        about: prose, Markdown.
    """

    role: str
    name: str
    formula: str
    about: str


@dataclass(frozen=True)
class Card:
    """All that is said of one method.

    Args:
        name: as in ``method=NAME``.
        label: as in figures.
        group: a key of `GROUPS`.
        comment: of its yaml.
        components: estimator, rule, schedule, search, as far as it has them.
        tunes: what it tunes, as prose.
        cost: gradients and Hessian-vector products, as prose.
        works: what it comes from, as `references.cited`.
    """

    name: str
    label: str
    group: str
    comment: Comment
    components: tuple[Component, ...]
    tunes: str
    cost: str
    works: tuple[str, ...]

    @property
    def example(self) -> str:
        """A command that runs it on data that come with scikit-learn."""
        return f"hpo-bench run method={self.name} dataset={DATASET}"


def names() -> list[str]:
    """The methods, in the order of figures."""
    folder = configs_folder() / "method"
    order = {}
    for file in folder.glob("*.yaml"):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        order[file.stem] = (content["method"]["order"], file.stem)
    return sorted(order, key=lambda name: order[name])


def cards() -> list[Card]:
    """A card for each method."""
    return [card(name) for name in names()]


def card(name: str) -> Card:
    """The card of one method."""
    file = configs_folder() / "method" / f"{name}.yaml"
    text = file.read_text(encoding="utf-8")
    composed: Any = compose([f"method={name}", f"dataset={DATASET}"])
    settings = parse(composed)
    trainer = Trainer.of(settings, _table(), torch.device("cpu"))
    method = composed["method"]
    group = _group(settings, trainer)
    components = tuple(_components(method))
    said = comment(text)
    words = " ".join([said.about, said.needs, said.fails, said.note])
    works = dict.fromkeys(references.cited(words))
    for component in components:
        works |= dict.fromkeys(references.cited(_all_said(component.name), with_paper=False))
    return Card(
        name=name,
        label=str(method["label"]),
        group=group,
        comment=said,
        components=components,
        tunes=_tunes(settings, group),
        cost=_cost(settings, trainer),
        works=tuple(works) or (references.THE_PAPER,),
    )


def comment(text: str) -> Comment:
    """Take the comment at the top of a yaml apart."""
    found = {"about": "", "needs": "", "fails": "", "note": ""}
    kind = "about"
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        words = line.lstrip("# ")
        if words.startswith("@package"):
            continue
        kind = next((to for mark, to in MARKS.items() if words.startswith(mark)), kind)
        found[kind] = f"{found[kind]} {words}".strip()
    return Comment(**found)


# --- what it is made of ---


def _components(method: Mapping[str, Any]) -> Iterator[Component]:
    for role in ("estimator", "rule", "schedule", "search"):
        node = method.get(role)
        if node:
            yield _component(role, str(node["_target_"]))
        elif role == "rule":
            yield _component(role, f"{MomentumSGD.__module__}.{MomentumSGD.__name__}")


@cache
def _component(role: str, target: str) -> Component:
    made = _class(target)
    said = [part for docstring in _docstrings(made) for part in docstrings.parts(docstring)]
    formulas = [part.text for part in said if part.is_block]
    if not formulas and role == "estimator":
        formulas = [part.text for part in said if FORMULA.search(part.text)]
    own = [part.text for part in docstrings.parts(made.__doc__) if not part.is_block]
    about = own if own and not _leads_to_a_formula(own[0]) else own[1:]
    return Component(role, target, formulas[0] if formulas else "", "\n\n".join(about))


def _leads_to_a_formula(text: str) -> bool:
    return text.rstrip().endswith(":")


def _docstrings(made: type) -> Iterator[str]:
    """Of the class, of its module, and of those that it derives from within the package."""
    for each in made.__mro__:
        if each.__module__.startswith("hpo_bench.") and each.__doc__:
            yield each.__doc__
            yield inspect.getmodule(each).__doc__ or ""


def _all_said(target: str) -> str:
    made = _class(target)
    return f"{made.__doc__} {sys.modules[made.__module__].__doc__}"


def _class(target: str) -> type:
    module, _, name = target.rpartition(".")
    __import__(module)
    return getattr(sys.modules[module], name)


# --- what it does and costs ---


def _group(settings: Settings, trainer: Trainer) -> str:
    if settings.method.search is not None:
        return "search"
    if settings.method.estimator is not None:
        return "one-pass"
    rule = trainer.plan.rule
    weights = torch.zeros(1, 1)
    raw = {name: torch.zeros(1, 1) for name in rule.coordinates}
    given = Hyperparameters.of(raw, rule.coordinates)
    keeps = rule.in_force(State(weights, rule.init(weights)), given) is given
    return "plain" if keeps else "self-tuning"


def _tunes(settings: Settings, group: str) -> str:
    if group == "self-tuning":
        return "its own step size"
    tuned = [_in_words(name) for name in settings.method.tuned]
    per_weight = [_in_words(name) for name in settings.method.per_weight]
    parts = []
    if tuned:
        parts.append(_listed(tuned))
    if per_weight:
        parts.append(f"{_listed(per_weight)} with a value for each weight")
    if settings.method.search is not None:
        parts.append(f"{_listed([_in_words(name) for name in HYPERPARAMETERS])} by the search")
    return "; ".join(parts) or "nothing"


def _in_words(name: str) -> str:
    words = {"lr": "learning rate", "beta1": "β₁", "beta2": "β₂"}
    return words.get(name, name.replace("_", " "))


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _cost(settings: Settings, trainer: Trainer) -> str:
    said = in_words(work(trainer))
    search = settings.method.search
    if search is None:
        return said
    trainings = search.weight_updates(settings) / settings.weight_updates
    return f"{said}; as many weight updates as {trainings:,.0f} trainings"


def in_words(counted: Work) -> str:
    """Counted work as prose."""
    every = f"for every {counted.interval} weight updates"
    if counted.interval == 1:
        every = "for each weight update"
    if counted.gradients == counted.interval and not counted.hessian_products:
        return "1 gradient for each weight update, no Hessian-vector product"
    gradients = f"{counted.gradients} gradient{'s' * (counted.gradients != 1)}"
    products = f"{counted.hessian_products or 'no'} Hessian-vector product"
    products += "s" * (counted.hessian_products > 1)
    return f"{gradients} and {products} {every}"


@cache
def _table() -> Table:
    settings = parse(compose([f"dataset={DATASET}"]))
    return settings.source.load(settings.validation_share)


# --- as a page ---


def markdown(all_cards: Sequence[Card]) -> str:
    """All cards, as Markdown for MyST."""
    sections = [_overview(all_cards)]
    for group, title in GROUPS.items():
        members = [one for one in all_cards if one.group == group]
        if members:
            sections.append(f"## {title}")
            sections += [_section(one) for one in members]
    return "\n\n".join(sections)


def _overview(all_cards: Sequence[Card]) -> str:
    rows = ["| method | what it tunes | cost |", "| --- | --- | --- |"]
    for group in GROUPS:
        for one in all_cards:
            if one.group == group:
                rows.append(f"| [{one.label}](#card-{one.name}) | {one.tunes} | {one.cost} |")
    return "\n".join(rows)


def _section(one: Card) -> str:
    works = ", ".join(f"[{work}](#{references.anchor(work)})" for work in one.works)
    lines = [f"**It tunes** {one.tunes}.", f"**It costs** {one.cost}."]
    lines += [_emphasised(text) for text in (one.comment.needs, one.comment.fails) if text]
    lines += [f"**It comes from** {works}."]
    parts = [f"(card-{one.name})=", f"### {one.label}", one.comment.line, one.comment.rest]
    parts += [component for each in one.components for component in _shown(each)]
    parts += ["\n".join(f"- {line}" for line in lines), one.comment.note]
    parts.append(f"```bash\n{one.example}\n```")
    return "\n\n".join(part for part in parts if part)


def _emphasised(text: str) -> str:
    return re.sub(r"^(It needs|It fails)", r"**\1**", text)


def _shown(component: Component) -> list[str]:
    reference = f"{{py:class}}`~{component.name}`"
    head = f"{component.role.capitalize()}: {reference}."
    if not component.formula:
        return [head]
    return [head, f"```text\n{component.formula}\n```"]


def incomplete(all_cards: Sequence[Card]) -> list[str]:
    """What cards lack, a line each."""
    known = set(references.entries())
    lacking = []
    for one in all_cards:
        where = f"configs/method/{one.name}.yaml"
        if not one.comment.line:
            lacking.append(f"{where}: a comment that says in a sentence what the method is")
        if not one.comment.fails:
            lacking.append(f"{where}: a comment line that begins with 'It fails'")
        for component in one.components:
            if component.role in ("estimator", "rule") and not component.formula:
                lacking.append(f"{component.name}: a formula in its docstring, or its module's")
        for name in one.works:
            if name not in known:
                lacking.append(f"{where}: {name} is cited, and not in docs/references.md")
    return lacking
