"""The account of races between backbones: who ran, who was dropped where and why, and what that saved."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from featx.learn.racing import RaceRules, Races, Standing

FINAL = "final"
"""The race for the saved classifier; the others are those of the outer folds."""


@dataclass(frozen=True)
class Runner:
    """A backbone that raced.

    Attributes
    ----------
    backbone, file : str
        `file`: its feature file.
    n_parameters : int
        Of its network: the smaller is the cheaper.
    n_images : int
        Samples whose features the races and the contest after them wanted.
    n_computed : int
        How many of them were computed in this run, and not before.
    """

    backbone: str
    file: str
    n_parameters: int
    n_images: int
    n_computed: int


@dataclass(frozen=True)
class RaceLine:
    """What the table of decisions says of one backbone in one rung.

    Attributes
    ----------
    rung, n_samples : int
        `n_samples`: of the final race; of another where the final one was decided already.
    standing : Standing
        In that race.
    race : str
    n_dropped, n_races : int
        In how many of the races that were judged in this rung, and had this backbone, it was dropped.
    """

    rung: int
    n_samples: int
    standing: Standing
    race: str
    n_dropped: int
    n_races: int

    @property
    def words(self) -> str:
        """What happened to it, and how sure it is that the best of the rung is better."""
        beside = self.standing.beside_best
        if beside is None:
            return "best"
        p = "" if beside.p_value is None else f", p = {beside.p_value:.2g}"
        if self.standing.dropped:
            return f"{'larger, dropped' if beside.is_tie else 'dropped'}{p}"
        return f"{'tied' if beside.is_tie else 'kept'}{p}"


@dataclass(frozen=True, eq=False)
class RaceAccount:
    """What became of the backbones that were to be chosen from.

    Attributes
    ----------
    runners : list of Runner
        The smallest first.
    races : Races
    rules : RaceRules
    n_images : int
        Samples that could be raced on.
    absent : dict of str to str
        Backbones that were left out, and why.
    failures : dict of str to str
        Key to reason of samples that failed, and took part in nothing.
    winner : str
        The backbone of the saved classifier.
    tied : str
        That which came second, where the two cannot be told apart; else ``""``.
    """

    runners: list[Runner]
    races: Races
    rules: RaceRules
    n_images: int
    winner: str
    tied: str = ""
    absent: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def n_everything(self) -> int:
        """Images times backbones: what comparing all of them on everything would have computed."""
        return self.n_images * len(self.runners)

    @property
    def n_saved(self) -> int:
        """How many of these were not computed."""
        return self.n_everything - sum(one.n_images for one in self.runners)

    def lines(self) -> list[RaceLine]:
        """List rung by rung what happened in the final race, or, where it was decided before, in another."""
        lines = []
        for rung in sorted({one.rung for one in self.races.decisions}):
            judged = [one for one in self.races.decisions if one.rung == rung and one.standings]
            of_final = [one for one in judged if one.race == FINAL]
            for shown in (of_final or judged)[:1]:
                for standing in shown.standings:
                    everywhere = [s for one in judged for s in one.standings if s.backbone == standing.backbone]
                    n_dropped = sum(one.dropped for one in everywhere)
                    lines.append(RaceLine(rung, shown.n_samples, standing, shown.race, n_dropped, len(everywhere)))
        return lines

    @property
    def description(self) -> str:
        """How the backbone was chosen, in a few sentences."""
        n_races = len(self.races.roster)
        if len(self.runners) == 1:
            return f"One backbone, {self.winner}: there was nothing to race."
        left = self.races.roster[FINAL]
        text = f"{len(self.runners)} backbones competed in {n_races} races, one for each training part"
        if not self.races.decisions:
            text += ", all on all images: there are too few for rungs"
        text += "; a race sees its own training part alone, so the scores pay for the choice of the backbone. "
        if len(left) == 1:
            text += f"{self.winner} was alone at the end of the final race."
        else:
            text += (
                f"{', '.join(left)} outlasted the final race, and {self.winner} was best on its whole training part."
            )
        return text

    @property
    def notes(self) -> list[str]:
        """What else the user must hear."""
        notes = [f"{name} took no part: {why}" for name, why in self.absent.items()]
        unjudged = dict.fromkeys(one.unjudged for one in self.races.decisions if one.unjudged)
        notes += [f"A rung could not be judged, and nobody was dropped in it: {why}" for why in unjudged]
        return notes

    @property
    def tie(self) -> str:
        """What a tie at the end means, in words; ``""`` where there is none."""
        if not self.tied:
            return ""
        sizes = {one.backbone: one.n_parameters for one in self.runners}
        smaller, larger = sorted((self.winner, self.tied), key=list(sizes).index)
        of = f"{smaller} is the smaller ({sizes[smaller] / 1e6:.1f}, not {sizes[larger] / 1e6:.1f} million parameters)"
        advice = "" if smaller == self.winner else "; --auto-ties smaller takes it, and scores that rule"
        return f"tie: {self.winner} and {self.tied} cannot be told apart; {of}{advice}"

    def to_dict(self) -> dict[str, Any]:
        """Return the same for JSON and for the bundle; scores without their folds."""
        return {
            "winner": self.winner,
            "tie": self.tie,
            "backbones": [asdict(one) for one in self.runners],
            "absent": self.absent,
            "failures": self.failures,
            "roster": {race: list(left) for race, left in self.races.roster.items()},
            "decisions": [
                {
                    "rung": one.rung,
                    "race": one.race,
                    "n_samples": one.n_samples,
                    "unjudged": one.unjudged,
                    "standings": [_standing(standing) for standing in one.standings],
                }
                for one in self.races.decisions
            ],
            "images": {"samples": self.n_images, "everything": self.n_everything, "saved": self.n_saved},
            "rules": asdict(self.rules),
        }


def _standing(standing: Standing) -> dict[str, Any]:
    beside = standing.beside_best
    return {
        "backbone": standing.backbone,
        "score": {name: getattr(standing.score, name) for name in ("mean", "low", "high")},
        "dropped": standing.dropped,
        "p_value": None if beside is None else beside.p_value,
    }
