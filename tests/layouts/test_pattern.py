"""Trees by format strings and by table, as they are and as they are broken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lesionsynth.domain.case import Cohort
from lesionsynth.errors import InputError, RecipeError
from lesionsynth.layouts.pattern import Pattern
from tests.layouts.trees import touch

SIMPLE = Pattern(images={"FLAIR": "{case}_FLAIR.nii.gz"}, label="{case}_mask.nii.gz")
TABLE = Pattern(table="t.csv")


def cases(layout: Pattern, root: Path) -> list[tuple[str, str]]:
    return [(c.case, c.subject) for c in layout.scan(root).cohort.cases]


def add(root: Path, *names: str) -> None:
    touch(root, [f"{name}_{what}.nii.gz" for name in names for what in ("FLAIR", "mask")])


class TestSpec:
    @pytest.mark.parametrize(
        ("fields", "match"),
        [
            ({}, "either `images` and `label`, or `table`"),
            ({"images": {"F": "{case}.nii"}}, "either"),
            ({"label": "{case}.nii"}, "either"),
            ({"images": {"F": "{case}_f.nii"}, "label": "{case}.nii", "table": "t.csv"}, "either"),
            ({"images": {"F": "{case}.mha"}, "label": "{case}.nii"}, "should end in"),
            ({"images": {"F": "../{case}_f.nii"}, "label": "{case}.nii"}, "below the input"),
            ({"images": {"F": "a/../../{case}_f.nii"}, "label": "{case}.nii"}, "below the input"),
            ({"images": {"F": "/{case}_f.nii"}, "label": "{case}.nii"}, "below the input"),
            ({"images": {"F": "{case}_f.nii"}, "label": "../{case}.nii"}, "below the input"),
            ({"images": {"F": "f.nii"}, "label": "mask.nii"}, "should have a field"),
            ({"images": {"F": "f.nii"}, "label": "{1}.nii"}, "should have a field"),
            (
                {"images": {"F": "{site}_{case}.nii"}, "label": "{case}.nii"},
                "has {site}, which `label` has not",
            ),
            ({"images": {"F": "{case}_f.nii", "T": "{case}_f.nii"}, "label": "{case}.nii"}, "occurs twice"),
            ({"images": {"F": "{case}.nii"}, "label": "{case}.nii"}, "occurs twice"),
        ],
    )
    def test_what_cannot_work_is_refused(self, fields: dict[str, Any], match: str) -> None:
        with pytest.raises(ValidationError, match=match):
            Pattern(**fields)

    def test_is_never_recognised_by_itself(self, tmp_path: Path) -> None:
        assert not Pattern.recognises(tmp_path)


class TestPatterns:
    def test_case_is_the_subject_where_nothing_else_is_said(self, tmp_path: Path) -> None:
        add(tmp_path, "b", "a")
        assert cases(SIMPLE, tmp_path) == [("a", "a"), ("b", "b")]

    def test_fields_without_case_are_joined(self, tmp_path: Path) -> None:
        layout = Pattern(
            images={"T1": "{subject}/{session}/T1.nii"}, label="{subject}/{session}/seg.nii", labels={"x": 1}
        )
        touch(tmp_path, [f"s{s}/t{t}/{n}.nii" for s in (1, 2) for t in (1, 2) for n in ("T1", "seg")])
        assert cases(layout, tmp_path)[:2] == [("s1_t1", "s1"), ("s1_t2", "s1")]
        assert dict(layout.scan(tmp_path).cohort.labels.values) == {"x": 1}

    def test_a_field_that_recurs_is_the_same_everywhere(self, tmp_path: Path) -> None:
        layout = Pattern(images={"T1": "{case}/{case}_T1.nii"}, label="{case}/{case}_seg.nii")
        touch(tmp_path, ["a/a_T1.nii", "a/a_seg.nii", "a/b_T1.nii", "a/b_seg.nii"])
        assert cases(layout, tmp_path) == [("a", "a")]

    def test_a_field_is_a_part_of_one_folder(self, tmp_path: Path) -> None:
        add(tmp_path, "a", "deep/b")
        assert cases(SIMPLE, tmp_path) == [("a", "a")]

    @pytest.mark.parametrize("folder", ["x[1]", "x*", "x?", "{x", "a+b", "x.y", "(x)"])
    def test_other_characters_stand_for_themselves(self, tmp_path: Path, folder: str) -> None:
        layout = Pattern(images={"T1": f"{folder}/{{case}}_T1.nii"}, label=f"{folder}/{{case}}_seg.nii")
        for name in (folder, "x1", "xx", "aab", "xzy"):
            touch(tmp_path, [f"{name}/c[{name}]_T1.nii", f"{name}/c[{name}]_seg.nii"])
        assert cases(layout, tmp_path) == [(f"c[{folder}]", f"c[{folder}]")]

    def test_hidden_files_are_no_cases(self, tmp_path: Path) -> None:
        add(tmp_path, "a", "._a", ".tmp-1-a")
        assert cases(SIMPLE, tmp_path) == [("a", "a")]
        wanted = Pattern(images={"T1": ".work/{case}_T1.nii"}, label=".work/{case}.nii")
        touch(tmp_path, [".work/a_T1.nii", ".work/a.nii", ".work/._a.nii"])
        assert cases(wanted, tmp_path) == [("a", "a")]

    def test_a_missing_channel_is_one_finding(self, tmp_path: Path) -> None:
        add(tmp_path, "a", "b")
        (tmp_path / "a_FLAIR.nii.gz").unlink()
        scan = SIMPLE.scan(tmp_path)
        (finding,) = scan.findings
        assert (finding.case, finding.file) == ("a", str(tmp_path / "a_FLAIR.nii.gz"))
        assert "FLAIR is missing" in finding.fault
        assert [c.case for c in scan.cohort.cases] == ["b"]

    def test_two_files_with_one_id(self, tmp_path: Path) -> None:
        layout = Pattern(images={"T1": "{site}/{case}_T1.nii"}, label="{site}/{case}.nii")
        touch(tmp_path, [f"{site}/a{end}.nii" for site in ("x", "y") for end in ("", "_T1")])
        scan = layout.scan(tmp_path)
        finding = next(f for f in scan.findings if "twice" in f.fault)
        assert (finding.case, finding.file) == ("a", str(tmp_path / "y/a.nii"))

    def test_a_missing_folder_has_no_cases(self, tmp_path: Path) -> None:
        assert cases(SIMPLE, tmp_path / "missing") == []


class TestTable:
    def write(self, root: Path, text: str, encoding: str = "utf-8") -> None:
        add(root, "a", "b")
        (root / "t.csv").write_bytes(text.encode(encoding))

    def test_columns(self, tmp_path: Path) -> None:
        self.write(
            tmp_path,
            "fold,case,T2,subject,label\n1,x,a_FLAIR.nii.gz,s,a_mask.nii.gz\n2,y,b_FLAIR.nii.gz,,b_mask.nii.gz\n",
        )
        scan = TABLE.scan(tmp_path)
        assert scan.findings == ()
        assert scan.cohort.channels == ("T2",)
        assert [(c.case, c.subject, c.fold) for c in scan.cohort.cases] == [("x", "s", "1"), ("y", "y", "2")]

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    @pytest.mark.parametrize("newline", ["\n", "\r\n"])
    def test_byte_order_mark_and_line_ends(self, tmp_path: Path, encoding: str, newline: str) -> None:
        lines = ["case,label,FLAIR", "ä,a_mask.nii.gz,a_FLAIR.nii.gz", ""]
        self.write(tmp_path, newline.join(lines), encoding)
        assert cases(TABLE, tmp_path) == [("ä", "ä")]

    def test_quotes_and_absolute_paths(self, tmp_path: Path) -> None:
        self.write(tmp_path, f'case,label,"FLAIR, 3 T"\na,{tmp_path}/a_mask.nii.gz,"a_FLAIR.nii.gz"\n')
        scan = TABLE.scan(tmp_path)
        assert scan.cohort.channels == ("FLAIR, 3 T",)
        assert TABLE.label_path(scan.cohort.cases[0], "a", scan.cohort) == Path("labels/a.nii.gz")

    @pytest.mark.parametrize(
        "header",
        ["", "case,FLAIR", "label,FLAIR", "case,label", "case;label;FLAIR", "case,label,FLAIR,FLAIR"],
    )
    def test_missing_or_repeated_columns(self, tmp_path: Path, header: str) -> None:
        self.write(tmp_path, f"{header}\na,a_mask.nii.gz,a_FLAIR.nii.gz,x\n")
        with pytest.raises(InputError, match="at least one channel are needed, each once") as caught:
            TABLE.scan(tmp_path)
        assert caught.value.file == str(tmp_path / "t.csv")

    def test_empty_cells_name_their_line(self, tmp_path: Path) -> None:
        self.write(tmp_path, "case,label,FLAIR\n\n,a_mask.nii.gz,a_FLAIR.nii.gz\nb,b_mask.nii.gz\n")
        findings = TABLE.scan(tmp_path).findings
        assert [f.fault for f in findings] == ["line 3 has empty cells.", "line 4 has empty cells."]
        assert all(f.file == str(tmp_path / "t.csv") for f in findings)

    def test_missing_files_and_repeated_ids(self, tmp_path: Path) -> None:
        self.write(
            tmp_path,
            "case,label,FLAIR\na,a_mask.nii.gz,a_FLAIR.nii.gz\na,b_mask.nii.gz,b_FLAIR.nii.gz\n"
            "c,c_mask.nii.gz,b_FLAIR.nii.gz\n",
        )
        scan = TABLE.scan(tmp_path)
        assert [c.label.name for c in scan.cohort.cases] == ["a_mask.nii.gz"]
        assert {(f.case, Path(f.file or "").name) for f in scan.findings} == {
            ("a", "b_mask.nii.gz"),
            ("c", "c_mask.nii.gz"),
        }

    @pytest.mark.parametrize("content", [b"case,label\xff,F\n", None])
    def test_a_table_that_cannot_be_read(self, tmp_path: Path, content: bytes | None) -> None:
        if content is not None:
            (tmp_path / "t.csv").write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as CSV"):
            TABLE.scan(tmp_path)


class TestOutput:
    def cohort(self, root: Path) -> Cohort:
        touch(root, ["s1/a_FLAIR.nii.gz", "s1/a_mask.nii.gz"])
        layout = Pattern(
            images={"FLAIR": "{subject}/{case}_FLAIR.nii.gz"}, label="{subject}/{case}_mask.nii.gz"
        )
        return layout.scan(root).cohort

    def test_of_another_layouts_cases(self, tmp_path: Path) -> None:
        cohort = replace(self.cohort(tmp_path), layout="nnunet")
        layout = Pattern(images={"FLAIR": "{subject}/x/{case}.nii"}, label="{subject}/{case}_seg.nii")
        files = cohort.cases[0]
        assert layout.image_path(files, "a__syn000", 0, cohort) == Path("s1/x/a__syn000.nii")
        assert layout.label_path(files, "a__syn000", cohort) == Path("s1/a__syn000_seg.nii")

    def test_a_pattern_that_cannot_tell_foreign_cases_apart_is_not_used(self, tmp_path: Path) -> None:
        cohort = replace(self.cohort(tmp_path), layout="nnunet")
        layout = Pattern(images={"FLAIR": "{subject}/FLAIR.nii"}, label="{subject}/seg.nii")
        assert layout.image_path(cohort.cases[0], "a", 0, cohort) == Path("images/a_0000.nii.gz")

    def test_a_field_that_the_input_does_not_tell_is_an_error(self, tmp_path: Path) -> None:
        cohort = self.cohort(tmp_path)
        layout = Pattern(images={"FLAIR": "{site}_{case}_f.nii"}, label="{site}_{case}.nii")
        with pytest.raises(RecipeError, match=r"{site}, which the input does not tell"):
            layout.label_path(cohort.cases[0], "a", cohort)

    def test_a_channel_without_a_pattern_goes_to_a_flat_tree(self, tmp_path: Path) -> None:
        cohort = replace(self.cohort(tmp_path), channels=("T1",))
        layout = Pattern(images={"FLAIR": "{case}_f.nii"}, label="{case}.nii")
        assert layout.image_path(cohort.cases[0], "a", 0, cohort) == Path("images/a_0000.nii.gz")
