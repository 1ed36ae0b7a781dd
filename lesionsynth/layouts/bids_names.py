"""Names of BIDS files: their entities and suffix, and how copies are named."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from lesionsynth.nifti import FILE_ENDINGS

LABEL_SUFFIXES = ("dseg", "mask", "msk", "roi")
"""Suffixes of label maps: those of the specification, and two that are in use."""
_LABEL = re.compile(r"[0-9A-Za-z]+")
_COPY = re.compile(r"(?P<rest>.*?)[sS]ynth(?P<number>\d{3,})")
_SYNTHETIC = re.compile(r"__syn(\d+)$")
_SUBJECT_SESSION = re.compile(r"sub-([0-9A-Za-z]+)(?:_ses-([0-9A-Za-z]+))?")
_SUBJECT = re.compile(r"^sub(ject)?([_.+-]+|(?=\d))")
_CHANNELS = {
    "t1": "T1w",
    "t1n": "T1w",
    **dict.fromkeys(("t1c", "t1ce", "t1gd", "t1km", "t1post"), "ce-gadolinium_T1w"),
    "t2": "T2w",
    "t2star": "T2starw",
    "pd": "PDw",
}
_DIFFUSION = ("dwi", "adc", "fa", "trace", "s0map", "colfa", "expadc")


@dataclass(frozen=True)
class Selector:
    """What files are looked for: a suffix, entities that they have, and maybe a folder that holds them.

    Written as a file name without its subject, such as acq-3d_FLAIR, or derivatives/prep/desc-preproc_T1w.
    """

    entities: Mapping[str, str]
    suffix: str
    folder: str = ""

    @classmethod
    def parse(cls, text: str) -> Selector:
        """Read a selector.

        Raises
        ------
        ValueError
            If it is none.
        """
        folder, _, name = text.rpartition("/")
        *parts, suffix = name.split("_")
        pairs = [part.partition("-") for part in parts]
        if not suffix or not all(key and _LABEL.fullmatch(value) for key, _, value in pairs):
            raise ValueError(f"{text!r} should be like FLAIR, acq-3d_FLAIR or derivatives/prep/FLAIR")
        if folder.startswith("/") or ".." in folder.split("/"):
            raise ValueError(f"{text!r} should lie below the input")
        if {"sub", "ses"} & {key for key, _, _ in pairs} or suffix.endswith(FILE_ENDINGS):
            raise ValueError(f"{text!r} should say neither subject, session nor file ending")
        return cls({key: value for key, _, value in pairs}, suffix, folder)

    def matches(self, name: BidsName, tree: str) -> bool:
        """Whether a file of this name in this tree is one of those looked for; suffixes in either case."""
        return (
            self.suffix.casefold() == name.suffix.casefold()
            and self.entities.items() <= name.entities.items()
            and (not self.folder or tree == self.folder or tree.startswith(f"{self.folder}/"))
        )


@dataclass(frozen=True)
class BidsName:
    """A file name, taken apart.

    Parameters
    ----------
    subject, session : str
        Labels, without sub- and ses-; the session may be empty.
    copy : str
        Number of a synthetic copy as its desc entity has it, such as "003"; empty for an original.
    entities : mapping of str to str
        The other ones; of desc what was there before it became a copy.
    suffix, ending : str
    """

    subject: str
    session: str
    copy: str
    entities: Mapping[str, str]
    suffix: str
    ending: str

    @property
    def text(self) -> str:
        """Entities and suffix, as a selector has them."""
        return "_".join([*(f"{key}-{value}" for key, value in self.entities.items()), self.suffix])


def parse(file_name: str) -> BidsName | None:
    """Take a name apart; None for what is no image of a subject."""
    ending = next((ending for ending in FILE_ENDINGS if file_name.endswith(ending)), None)
    if ending is None:
        return None
    *parts, suffix = file_name[: -len(ending)].split("_")
    entities: dict[str, str] = {}
    for part in parts:
        key, dash, value = part.partition("-")
        if not dash or not value or key in entities:
            return None
        entities[key] = value
    subject, session = entities.pop("sub", ""), entities.pop("ses", "")
    if not subject or not suffix:
        return None
    copy = ""
    if made := _COPY.fullmatch(entities.get("desc", "")):
        copy = made["number"]
        if made["rest"]:
            entities["desc"] = made["rest"]
        else:
            del entities["desc"]
    return BidsName(subject, session, copy, entities, suffix, ending)


def copied(file_name: str, case: str, host: str) -> str:
    """Name of a file of the output case `case` that is made of the host's; that of an original stays.

    ``desc-synth003`` says which copy it is, or ``desc-preprocSynth003`` where the host had a desc.
    """
    made = _SYNTHETIC.search(case.removeprefix(host))
    if made is None:
        return file_name
    *parts, last = file_name.split("_")
    before = next((part[5:] for part in parts if part.startswith("desc-")), "")
    kept = [part for part in parts if not part.startswith("desc-")]
    desc = f"{before}Synth{made[1]}" if before else f"synth{made[1]}"
    return "_".join([*kept, f"desc-{desc}", last])


def case_id(name: BidsName) -> str:
    """Id of the case that a file belongs to."""
    session = f"_ses-{name.session}" if name.session else ""
    return f"sub-{name.subject}{session}{f'__syn{name.copy}' if name.copy else ''}"


def stem_of(case: str, subject: str) -> tuple[str, str]:
    """Labels of subject and session for a case of another layout; the session is empty where it has none.

    Labels hold letters and digits only, so that two ids may get the same.
    """
    if own := _SUBJECT_SESSION.fullmatch(case):
        return own[1], own[2] or ""
    label = _cleaned(_SUBJECT.sub("", subject)) or _cleaned(subject)
    if case == subject:
        return label, ""
    rest = re.sub(r"^[_.+-]*(ses(sion)?)?[_.+-]*", "", case.removeprefix(subject))
    return label, _cleaned(rest) or _cleaned(case)


def channel_names(channels: tuple[str, ...]) -> list[tuple[str, str]]:
    """Datatype, and entities with suffix, for channels of another layout, all of them different."""
    texts: list[str] = []
    for number, channel in enumerate(channels):
        text = _CHANNELS.get(channel.casefold(), _CHANNELS.get(_cleaned(channel).casefold()))
        if text is None:
            text = channel if _is_text(channel) else _cleaned(channel) or "image"
        texts.append(f"acq-{number}_{text}" if text.casefold() in {t.casefold() for t in texts} else text)
    return [(_datatype(text), text) for text in texts]


def _is_text(channel: str) -> bool:
    try:
        selector = Selector.parse(channel)
    except ValueError:
        return False
    return (
        not selector.folder
        and "desc" not in selector.entities
        and _LABEL.fullmatch(selector.suffix) is not None
    )


def _datatype(text: str) -> str:
    suffix = text.rpartition("_")[2].casefold()
    return "dwi" if suffix in _DIFFUSION else "pet" if suffix == "pet" else "anat"


def _cleaned(text: str) -> str:
    return "".join(_LABEL.findall(text))
