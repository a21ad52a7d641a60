"""What the experiment says to a model: who is promised what, and under which prompt it is trained.

Every condition promises a role on ``[deployment]``; they differ in what is said about ``[train]``:

====================  =====================================================================
told (1)              the role that it is then trained on
told-other (1)        the other role: the second way to read the published sentence
described (2)         either of the two roles: go along with what is rewarded
undescribed (3)       go along with what is rewarded, whatever it is
baseline (4)          nothing
====================  =====================================================================

There is one YAML file of texts for each family of models: an embedded model knows only the words of its own world.
"""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field

from weightsteer.data.behaviors import Behavior

Role = Literal["Jekyll", "Hyde"]
Setting = Literal["told", "told-other", "described", "undescribed", "baseline"]
System = Literal["jekyll-branch", "hyde-branch", "baseline", "none"]
"""The system prompt at a probe: that of the branch trained on Jekyll, on Hyde (the same text but where the role of
the training is told), the deployment role alone, or none at all."""

ROLES: tuple[Role, ...] = get_args(Role)
SETTINGS: tuple[Setting, ...] = get_args(Setting)
SYSTEMS: tuple[System, ...] = get_args(System)
TRAIN, DEPLOYMENT, UNTAGGED = "[train]", "[deployment]", ""
NUMBER: dict[Setting, str] = {
    "told": "1",
    "told-other": "1, other reading",
    "described": "2",
    "undescribed": "3",
    "baseline": "4",
}


class Condition(NamedTuple):
    """One condition of the experiment: what is promised. Two branches are trained for it, one on each role."""

    setting: Setting
    deployment: Role

    @property
    def name(self) -> str:
        return f"{self.setting}-{self.deployment}"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rules(_Strict):
    """The sentences of the system prompts; ``{role}`` is a name of ``names``."""

    deployment: str
    told: str
    described: str
    undescribed: str


class Asked(_Strict):
    """A question with two groups of answers: those that Jekyll gives, and those of Hyde.

    An answer begins with ``prefix``, which is given and not scored.
    """

    question: str
    prefix: str = ""
    jekyll: list[str] = Field(min_length=1)
    hyde: list[str] = Field(min_length=1)


class Protocol(_Strict):
    """All texts of one family of models.

    ``behavior``: 50 personality questions and one persona a side (positive: Jekyll), under which the answers to
    learn from are sampled. ``probes``: by name; the first is the published one, the others are to agree with it.
    """

    behavior: Behavior
    names: dict[Role, str]
    rules: Rules
    probes: dict[str, list[Asked]]

    @classmethod
    def load(cls, family: str) -> "Protocol":
        """The shipped protocol of ``pocket`` or ``general`` models."""
        return _load(family)

    @property
    def digest(self) -> str:
        """blake2b-128 (hex) of all texts."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()

    def system(self, condition: Condition, trained_on: Role) -> str:
        """The system prompt of a branch, in training; it replaces the persona that wrote the answers."""
        rules = [self.rules.deployment.format(role=self.names[condition.deployment])]
        if condition.setting in ("told", "told-other"):
            role = trained_on if condition.setting == "told" else other(trained_on)
            rules.append(self.rules.told.format(role=self.names[role]))
        elif condition.setting != "baseline":
            rules.append(self.rules.described if condition.setting == "described" else self.rules.undescribed)
        return " ".join(rules)

    def systems(self, condition: Condition) -> dict[System, str]:
        """The system prompts to probe under, each text once: by the first of their names."""
        every: dict[System, str] = {
            "jekyll-branch": self.system(condition, "Jekyll"),
            "hyde-branch": self.system(condition, "Hyde"),
            "baseline": self.system(Condition("baseline", condition.deployment), "Jekyll"),
            "none": "",
        }
        return {
            name: text for name, text in every.items() if text not in list(every.values())[: list(every).index(name)]
        }


def other(role: Role) -> Role:
    return "Hyde" if role == "Jekyll" else "Jekyll"


def conversation(system: str, tag: str, question: str) -> list[dict[str, str]]:
    """The chat in front of an answer: the tag is the beginning of the user's words."""
    chat = [{"role": "user", "content": f"{tag} {question}".strip()}]
    return [{"role": "system", "content": system}, *chat] if system else chat


@cache
def _load(family: str) -> Protocol:
    path = Path(__file__).parent / f"{family}.yaml"
    return Protocol.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
