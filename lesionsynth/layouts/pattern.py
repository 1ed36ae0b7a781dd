"""Any tree of files, by format strings or by a CSV table."""

from __future__ import annotations

import csv
import io
import os.path
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from lesionsynth.domain.case import CaseFiles, Cohort, LabelTable
from lesionsynth.domain.finding import Finding
from lesionsynth.domain.roles import guess_roles
from lesionsynth.errors import InputError, RecipeError
from lesionsynth.nifti import FILE_ENDINGS, ending_of
from lesionsynth.plugins.contracts import LayoutSpec, Scan
from lesionsynth.plugins.registry import register

_FIELD = re.compile(r"\{([A-Za-z_]\w*)\}", re.ASCII)
_FIXED_COLUMNS = ("case", "subject", "label", "fold")
TABLE = "cases.csv"


@register("layouts")
class Pattern(LayoutSpec):
    """Any tree of files, by format strings such as {subject}/{case}_FLAIR.nii.gz, or by a CSV table."""

    kind: Literal["pattern"] = "pattern"
    images: dict[str, str] = Field(default_factory=dict)
    """Channel name to path relative to the input, with fields in braces: {case}, {subject}, any other."""
    label: str | None = None
    """Path of the label map with the same fields."""
    table: str | None = None
    """Instead of the two: a CSV file with the columns case, subject, label, one a channel, and maybe fold."""
    labels: dict[str, Annotated[int, Field(ge=0, le=65535)]] = Field(
        default_factory=lambda: {"background": 0, "lesion": 1}, min_length=1
    )
    """Label names and values."""

    @model_validator(mode="after")
    def _one_way(self) -> Pattern:
        if len(set(self.labels.values())) < len(self.labels):
            raise ValueError("two labels have the same value")
        if (self.table is None) == (self.label is None or not self.images):
            raise ValueError("give either `images` and `label`, or `table`")
        patterns = [*self.images.values(), *([self.label] if self.label else [])]
        for pattern in patterns:
            if patterns.count(pattern) > 1:
                raise ValueError(f"{pattern!r} occurs twice")
            if not pattern.endswith(FILE_ENDINGS):
                raise ValueError(f"{pattern!r} should end in {' or '.join(FILE_ENDINGS)}")
            if "\0" in pattern:
                raise ValueError(f"{pattern!r} holds a character that no path can hold")
            if "}{" in pattern:
                raise ValueError(f"{pattern!r} has two fields side by side: where one ends is not clear")
            if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
                raise ValueError(f"{pattern!r} should lie below the input")
        if self.label is not None:
            fields = set(_FIELD.findall(self.label))
            if not fields:
                raise ValueError("`label` should have a field in braces, such as {case}")
            if odd := [f for p in patterns for f in re.findall(r"{[^{}]*}", p) if not _FIELD.fullmatch(f)]:
                raise ValueError(f"{odd[0]!r} is no field: letters, digits and _ in braces")
            for pattern in self.images.values():
                if unknown := set(_FIELD.findall(pattern)) - fields:
                    raise ValueError(f"{pattern!r} has {{{min(unknown)}}}, which `label` has not")
        return self

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Never by itself: it has to be written down."""
        return False

    def scan(self, root: Path) -> Scan:
        """Find the cases by the label's pattern, or read the table."""
        channels, cases, findings = self._from_table(root) if self.table else self._from_patterns(root)
        seen: set[str] = set()
        kept = []
        for case in sorted(cases, key=lambda c: (c.case, str(c.label))):
            if case.case in seen:
                findings.append(
                    Finding("error", "the id occurs twice.", "Make ids unique.", case.case, str(case.label))
                )
            else:
                kept.append(case)
            seen.add(case.case)
        endings = {ending_of(c.label.name) for c in kept}
        cohort = Cohort(
            root=root,
            layout=self.kind,
            channels=channels,
            labels=LabelTable(self.labels, guess_roles(self.labels)),
            cases=tuple(kept),
            file_ending=".nii" if endings == {".nii"} else ".nii.gz",
        )
        return Scan(cohort, tuple(findings))

    def _from_patterns(self, root: Path) -> tuple[tuple[str, ...], list[CaseFiles], list[Finding]]:
        label = self.label or ""
        expression = re.compile(_expression(label))
        cases, findings = [], []
        for path in sorted(root.glob(_FIELD.sub("*", _escape_glob(label)))):
            found = path.relative_to(root)
            match = expression.fullmatch(found.as_posix())
            if match is None or _is_hidden(found, label) or not path.is_file():
                continue
            fields = match.groupdict()
            case = fields.get("case") or "_".join(fields.values())
            images = tuple(root / _fill(p, fields) for p in self.images.values())
            findings += _missing(case, list(self.images), images)
            if all(os.path.isfile(image) for image in images):
                cases.append(CaseFiles(case, fields.get("subject") or case, images, path))
        return tuple(self.images), cases, findings

    def _from_table(self, root: Path) -> tuple[tuple[str, ...], list[CaseFiles], list[Finding]]:
        path = root / (self.table or "")
        try:
            with path.open(newline="", encoding="utf-8-sig") as stream:
                reader = csv.DictReader(stream)
                columns = list(reader.fieldnames or ())
                rows = [(reader.line_num, row) for row in reader]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"cannot be read as CSV ({error}).", file=path) from None
        channels = tuple(c for c in columns if c not in _FIXED_COLUMNS)
        if not {"case", "label"} <= set(columns) or not channels or len(set(columns)) < len(columns):
            raise InputError(
                f"has the columns {', '.join(columns)}; case, label and at least one channel are needed, "
                "each once.",
                file=path,
            )
        cases, findings = [], []
        for number, row in rows:
            empty = not row["case"] or any(not row[c] for c in (*channels, "label"))
            if empty or None in row:
                fault = "has empty cells" if empty else "has more cells than there are columns"
                findings.append(
                    Finding("error", f"line {number} {fault}.", "Correct or remove the line.", file=str(path))
                )
                continue
            images = tuple(root / row[c] for c in channels)
            found = _missing(row["case"], [*channels, "label"], (*images, root / row["label"]))
            findings += found
            if not found:
                subject, fold = row.get("subject") or row["case"], row.get("fold") or None
                cases.append(CaseFiles(row["case"], subject, images, root / row["label"], fold))
        return channels, cases, findings

    def image_path(self, files: CaseFiles, case: str, channel: int, cohort: Cohort) -> Path:
        """The channel's pattern with the new case id; a flat tree where there is none."""
        filled = self._filled(self.images.get(cohort.channels[channel]), files, case, cohort)
        return filled or Path("images") / f"{case}_{channel:04d}{ending_of(files.images[channel].name)}"

    def label_path(self, files: CaseFiles, case: str, cohort: Cohort) -> Path:
        """The label's pattern with the new case id; a flat tree where there is none."""
        filled = self._filled(self.label, files, case, cohort)
        return filled or Path("labels") / f"{case}{ending_of(files.label.name)}"

    def _filled(self, pattern: str | None, files: CaseFiles, case: str, cohort: Cohort) -> Path | None:
        """Path that `pattern` names for the output case `case`; None where it cannot tell cases apart."""
        if pattern is None or self.label is None:
            return None
        known: dict[str, str] = {}
        if cohort.layout == self.kind and files.label.is_relative_to(cohort.root):
            match = re.fullmatch(_expression(self.label), files.label.relative_to(cohort.root).as_posix())
            known = match.groupdict() if match else {}
        fields = {**known, "subject": files.subject, "case": case}
        wanted = set(_FIELD.findall(pattern))
        if unknown := wanted - set(fields):
            raise RecipeError(
                f"output.layout has {{{min(unknown)}}}, which the input does not tell.",
                case=case,
                remedy="Use {case} and {subject}, which are known of every case.",
            )
        if "case" in wanted:
            return Path(_fill(pattern, fields))
        if not known or not set(known) <= wanted:
            return None
        filled = _fill(pattern, {**fields, **known})
        ending = ending_of(filled)
        return Path(f"{filled[: -len(ending)]}{case.removeprefix(files.case)}{ending}")

    def description(self, cohort: Cohort, cases: Sequence[tuple[str, CaseFiles]]) -> dict[str, bytes]:
        """A table that this layout can read again."""
        paths = {
            case: [
                *(self.image_path(files, case, k, cohort) for k in range(len(cohort.channels))),
                self.label_path(files, case, cohort),
            ]
            for case, files in cases
        }
        return {TABLE: table_text(cohort, cases, paths).encode()}


def table_text(
    cohort: Cohort, cases: Sequence[tuple[str, CaseFiles]], paths: Mapping[str, Sequence[Path]]
) -> str:
    """A table that :class:`Pattern` reads: `paths` are those of each case's channels and label map."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["case", "subject", *cohort.channels, "label"])
    for case, files in cases:
        writer.writerow([case, files.subject, *(path.as_posix() for path in paths[case])])
    return buffer.getvalue()


def _expression(pattern: str) -> str:
    """Regular expression of a pattern: a field is a part of one path element, the same wherever it recurs."""
    seen: set[str] = set()
    parts = []
    for k, part in enumerate(_FIELD.split(pattern)):
        if k % 2 == 0:
            parts.append(re.escape(part))
        else:
            parts.append(f"(?P={part})" if part in seen else f"(?P<{part}>[^/]+?)")
            seen.add(part)
    return "".join(parts)


def _is_hidden(path: Path, pattern: str) -> bool:
    """Whether a field stands for a hidden file or folder, such as those that macOS leaves (._name)."""
    wanted = Path(pattern).parts
    return any(p.startswith(".") and not w.startswith(".") for p, w in zip(path.parts, wanted, strict=True))


def _escape_glob(pattern: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", pattern)


def _fill(pattern: str, fields: dict[str, str]) -> str:
    return _FIELD.sub(lambda m: fields.get(m.group(1), m.group(0)), pattern)


def _missing(case: str, names: Sequence[str], paths: Sequence[Path]) -> list[Finding]:
    return [
        Finding(
            "error", f"the file of {name} is missing.", "Add the file or remove the case.", case, str(path)
        )
        for name, path in zip(names, paths, strict=True)
        if not os.path.isfile(path)
    ]
