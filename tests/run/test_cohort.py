"""Cases, subjects, roles and masks of an input."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lesionsynth.domain.case import Cohort
from lesionsynth.domain.finding import Finding
from lesionsynth.errors import InputError
from lesionsynth.recipe.model import InputSpec
from lesionsynth.run.cohort import masks_alone, open_cohort, scan_cohort
from tests.layouts.trees import nnunet, touch


def scan(root: Path, **fields: Any) -> Cohort:
    return scan_cohort(InputSpec(**fields), root)[1].cohort


def roles(root: Path, labels: dict[str, Any], **given: str) -> dict[str, str]:
    return dict(scan(nnunet(root, ["a"], labels=labels), roles=given).labels.roles)


def subjects(root: Path, cases: list[str], **fields: Any) -> dict[str, str]:
    return {case.case: case.subject for case in scan(nnunet(root, cases), **fields).cases}


class TestRoles:
    @pytest.mark.parametrize(
        ("name", "role"),
        [
            ("lesion", "lesion"),
            ("MS_lesions", "lesion"),
            ("WMH", "lesion"),
            ("non-enhancing tumor core", "lesion"),
            ("liver_tumour", "lesion"),
            ("liver", "organ"),
            ("Other pathology", "protected"),
            ("vessel", "protected"),
            ("ignore", "ignore"),
        ],
    )
    def test_are_guessed_from_names(self, tmp_path: Path, name: str, role: str) -> None:
        found = roles(tmp_path, {"background": 0, "stroke": 1, name: 2})
        assert found == {"background": "background", "stroke": "lesion", name: role}

    def test_a_single_foreground_label_is_a_lesion(self, tmp_path: Path) -> None:
        assert roles(tmp_path, {"nothing": 0, "foreground": 1}) == {
            "nothing": "background",
            "foreground": "lesion",
        }

    def test_given_ones_count(self, tmp_path: Path) -> None:
        found = roles(tmp_path, {"background": 0, "liver": 1, "thing": 2}, thing="lesion", liver="protected")
        assert found == {"background": "background", "liver": "protected", "thing": "lesion"}

    @pytest.mark.parametrize(
        ("labels", "given", "match"),
        [
            ({"background": 0, "lesion": 1, "thing": 2}, {}, "not clear what the label 'thing' means"),
            ({"background": 0, "liver": 1, "spleen": 2}, {}, "no label is a lesion"),
            ({"background": 0, "lesion": 1}, {"lesoin": "lesion"}, "names the label 'lesoin'"),
        ],
    )
    def test_what_is_not_clear_is_asked(
        self, tmp_path: Path, labels: dict[str, int], given: dict[str, str], match: str
    ) -> None:
        with pytest.raises(InputError, match=match):
            roles(tmp_path, labels, **given)


class TestSubjects:
    def test_an_ending_that_names_a_session_is_left_out(self, tmp_path: Path) -> None:
        found = subjects(
            tmp_path,
            [
                "p1_ses-1",
                "p1_ses-02",
                "p2_tp1",
                "p3-visit-3",
                "sub-scan04",
                "p4_SESSION2",
                "p5_scan7",
                "p6_timepoint_1",
                "s_1",
                "p7_ses-pre",
                "p7_ses-2b",
                "p8_session-Followup",
                "sub-9_ses-post",
                "sub-9_ses-1_run-1",
                "sub-9_left",
                "sub-9b",
                "p9_sesame",
            ],
        )
        assert found == {
            "p1_ses-1": "p1",
            "p1_ses-02": "p1",
            "p2_tp1": "p2",
            "p3-visit-3": "p3",
            "sub-scan04": "sub-scan04",
            "p4_SESSION2": "p4",
            "p5_scan7": "p5",
            "p6_timepoint_1": "p6",
            "s_1": "s_1",
            "p7_ses-pre": "p7",
            "p7_ses-2b": "p7",
            "p8_session-Followup": "p8",
            "sub-9_ses-post": "sub-9",
            "sub-9_ses-1_run-1": "sub-9",
            "sub-9_left": "sub-9",
            "sub-9b": "sub-9b",
            "p9_sesame": "p9_sesame",
        }

    def test_a_regular_expression_finds_them(self, tmp_path: Path) -> None:
        found = subjects(tmp_path, ["sub01_left", "sub01_right", "sub02_left"], subject=r"(sub\d+)_.*")
        assert set(found.values()) == {"sub01", "sub02"}
        assert set(subjects(tmp_path, [], subject=r"(sub\d+)").values()) == {"sub01", "sub02"}

    def test_a_case_that_it_does_not_fit_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="finds no subject") as caught:
            subjects(tmp_path, ["other"], subject=r"(sub\d+)_.*")
        assert caught.value.case == "other"
        with pytest.raises(InputError, match="finds no subject"):
            subjects(tmp_path, [], subject=r"other(.*)")


class TestNames:
    def by_table(self, root: Path, case: str, subject: str) -> list[Finding]:
        touch(root, ["i.nii", "l.nii"])
        (root / "t.csv").write_text(f'case,subject,label,T1\n"{case}","{subject}",l.nii,i.nii\n')
        spec = InputSpec.model_validate({"layout": {"kind": "pattern", "table": "t.csv"}})
        return list(scan_cohort(spec, root)[1].findings)

    @pytest.mark.parametrize(
        "name", ["../x", "a/b", "/x", "..", ".hidden", "-rf", "a b", "a\nb", "a*", "ä", "~"]
    )
    def test_what_cannot_be_a_file_name_is_an_error(self, tmp_path: Path, name: str) -> None:
        (finding,) = self.by_table(tmp_path, name, "s")
        assert (finding.level, finding.case) == ("error", name)
        assert "cannot be a file name" in finding.fault
        (finding,) = self.by_table(tmp_path, "c", name)
        assert "the subject" in finding.fault

    def test_what_is_too_long_is_an_error(self, tmp_path: Path) -> None:
        """A copy of it, while it is written, would have a name of more than 255 bytes."""
        assert self.by_table(tmp_path, "a" * 180, "s") == []
        (finding,) = self.by_table(tmp_path, "a" * 181, "s")
        assert (finding.level, finding.case) == ("error", "a" * 181)
        assert "has 181 characters" in finding.fault

    def test_what_no_file_can_hold_is_an_error(self, tmp_path: Path) -> None:
        root = nnunet(tmp_path / "data", ["a"], licence="half \ud83d")
        with pytest.raises(InputError, match=r"its description holds half \\ud83d, which") as caught:
            scan(root)
        assert caught.value.file == str(root)
        strange = tmp_path / os.fsdecode(b"d\xe4ta")
        with pytest.raises(InputError, match=r"d\\udce4ta: its path holds d\\udce4ta, which"):
            scan(nnunet(strange, ["a"]))

    def test_nor_may_a_folder_in_it_have_such_a_name(self, tmp_path: Path) -> None:
        folder = os.fsdecode(b"\xe4")
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.nii").touch()
        (tmp_path / "a.nii").touch()
        spec = {
            "layout": {"kind": "pattern", "images": {"T1": f"{folder}/{{case}}.nii"}, "label": "{case}.nii"}
        }
        (finding,) = scan_cohort(InputSpec.model_validate(spec), tmp_path)[1].findings
        assert (finding.level, finding.case) == ("error", "a")
        assert str(finding.file).endswith("\\udce4/a.nii")

    def test_one_subject_for_all_is_worth_a_warning(self, tmp_path: Path) -> None:
        root = nnunet(tmp_path, ["sub-x_1", "sub-x_2"])
        (finding,) = scan_cohort(InputSpec(), root)[1].findings
        assert (finding.level, finding.file) == ("warning", str(root))
        assert "all 2 cases are of one subject, sub-x" in finding.fault
        assert scan_cohort(InputSpec(subject="(.*)"), root)[1].findings == ()
        assert scan_cohort(InputSpec(), nnunet(tmp_path / "one", ["a"]))[1].findings == ()

    @pytest.mark.parametrize("name", ["a", "0", "sub-01", "a.b_c+d-E"])
    def test_common_names_are_fine(self, tmp_path: Path, name: str) -> None:
        assert self.by_table(tmp_path, name, name) == []

    def test_a_synthetic_case_of_an_earlier_run_is_an_error(self, tmp_path: Path) -> None:
        _, found = scan_cohort(InputSpec(), nnunet(tmp_path, ["a", "a__syn000"]))
        (finding,) = found.findings
        assert (finding.level, finding.case) == ("error", "a__syn000")
        assert "synthetic case" in finding.fault


class TestSharedFiles:
    def test_a_label_that_is_a_link_to_a_channel_is_found(self, tmp_path: Path) -> None:
        root = nnunet(tmp_path, ["a", "b"])
        (root / "labelsTr/b.nii.gz").unlink()
        (root / "labelsTr/b.nii.gz").symlink_to("../imagesTr/b_0001.nii.gz")
        (twice,) = scan_cohort(InputSpec(), root)[1].findings
        assert (twice.case, twice.file) == ("b", str(root / "labelsTr/b.nii.gz"))
        assert "channel and the label map at once" in twice.fault

    def test_empty_label_maps_may_be_links_to_one_file(self, tmp_path: Path) -> None:
        """As git-annex stores what is equal; equal scans are found by their voxels."""
        root = nnunet(tmp_path, ["a", "b"])
        (root / "labelsTr/b.nii.gz").unlink()
        (root / "labelsTr/b.nii.gz").symlink_to("a.nii.gz")
        assert scan_cohort(InputSpec(), root)[1].findings == ()


class TestMasks:
    def masks(
        self, root: Path, cases: list[str], names: list[str], path: str, **fields: Any
    ) -> dict[str, str]:
        data = nnunet(root / "data", cases)
        touch(data, names)
        cohort = scan(data, masks={"path": path}, **fields)
        return {mask.path.name: mask.subject for mask in cohort.masks}

    def test_are_found_by_pattern(self, tmp_path: Path) -> None:
        names = [
            "masks/p2.nii.gz",
            "masks/p1.nii.gz",
            "masks/._p1.nii.gz",
            "masks/deep/p3.nii.gz",
            "p4.nii.gz",
        ]
        found = self.masks(tmp_path, ["a"], names, "masks/{subject}.nii.gz")
        assert found == {"p1.nii.gz": "p1", "p2.nii.gz": "p2"}

    @pytest.mark.parametrize("absolute", [True, False])
    def test_may_lie_elsewhere(self, tmp_path: Path, absolute: bool) -> None:
        touch(tmp_path, ["masks/p1/p1_seg.nii", "masks/p1/p2_seg.nii", "data/x.nii"])
        base = tmp_path.as_posix() if absolute else ".."
        assert self.masks(tmp_path, ["a"], [], base + "/masks/{subject}/{subject}_seg.nii") == {
            "p1_seg.nii": "p1"
        }

    def test_only_the_folder_of_the_pattern_is_searched(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        searched: list[Path] = []
        real = Path.rglob
        monkeypatch.setattr(Path, "rglob", lambda self, what: searched.append(self) or real(self, what))
        self.masks(tmp_path, ["a"], ["masks/p1.nii.gz"], f"{tmp_path}/data/masks/{{subject}}.nii.gz")
        assert searched == [tmp_path / "data" / "masks"]

    def test_one_of_a_case_or_session_is_of_its_subject(self, tmp_path: Path) -> None:
        names = [f"masks/{name}.nii.gz" for name in ("p1", "p1_ses-3", "p2_ses-1", "p9_ses-1", "p9_ses-2")]
        found = self.masks(tmp_path, ["p1_ses-1", "p1_ses-2", "p2_ses-1"], names, "masks/{subject}.nii.gz")
        assert found == {
            "p1.nii.gz": "p1",
            "p1_ses-3.nii.gz": "p1",
            "p2_ses-1.nii.gz": "p2",
            "p9_ses-1.nii.gz": "p9_ses-1",
            "p9_ses-2.nii.gz": "p9_ses-2",
        }

    def test_one_of_a_named_session_is_of_its_subject(self, tmp_path: Path) -> None:
        names = [f"m/sub-1_{name}.nii" for name in ("ses-followup", "ses-1_run-2", "left")]
        found = self.masks(tmp_path, ["sub-1_ses-pre", "sub-2"], names, "m/{subject}.nii")
        assert set(found.values()) == {"sub-1"}

    def test_the_rule_for_subjects_counts_too(self, tmp_path: Path) -> None:
        found = self.masks(
            tmp_path, ["p1-left"], ["m/p1-other.nii", "m/p3.nii"], "m/{subject}.nii", subject=r"(p\d+)-?.*"
        )
        assert found == {"p1-other.nii": "p1", "p3.nii": "p3"}

    @pytest.mark.parametrize("name", ["m/b__syn000.nii", "m/b__syn012_seg.nii", "out/l/b.nii", "made/b.nii"])
    def test_of_made_cases_are_refused(self, tmp_path: Path, name: str) -> None:
        """By their name, or as part of an output of a run or of `generate`."""
        root = nnunet(tmp_path / "data", ["a"])
        touch(tmp_path, [name, "m/__synapse.nii", "out/recipe.lock.yaml", "made/generated.json"])
        masks = {"path": f"{(tmp_path / name).parent}/{{subject}}.nii"}
        for opened, folder in ((open_cohort, root), (masks_alone, tmp_path / "m")):
            with pytest.raises(InputError, match="is a mask of made cases") as caught:
                opened(InputSpec(masks=masks), folder)
            assert caught.value.file == str(tmp_path / name)
        dropped = open_cohort(InputSpec(masks=masks, on_bad_case="drop"), root)[1]
        assert {mask.path.name for mask in dropped.masks} <= {"__synapse.nii"}

    def test_several_of_a_person_have_names_of_their_own(self, tmp_path: Path) -> None:
        touch(tmp_path, [f"m/{name}.nii" for name in ("P1_ses-1", "P1_ses-2", "P2")])
        found = masks_alone(InputSpec(masks={"path": "m/{subject}.nii"}), tmp_path)
        assert found is not None
        assert {mask.name: mask.subject for mask in found.masks} == {
            "P1_ses-1/mask": "P1",
            "P1_ses-2/mask": "P1",
            "P2/mask": "P2",
        }

    def test_none_at_all_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="finds no file"):
            self.masks(tmp_path, ["a"], [], "masks/{subject}.nii.gz")


class TestSplits:
    def test_are_read_without_faulty_cases(self, tmp_path: Path) -> None:
        root = nnunet(tmp_path, ["a", "b", "c"])
        (root / "splits_final.json").write_text(json.dumps([{"train": ["a", "b"], "val": ["c"]}]))
        (root / "labelsTr/b.nii.gz").unlink()
        (split,) = scan(root).splits or ()
        assert (split.train, split.val) == (("a",), ("c",))

    @pytest.mark.parametrize(
        "content",
        ["", "[]", "{}", "3", '[{"train": []}]', '[{"train": "a", "val": "b"}]', "[[]]", "[" * 100_000],
    )
    def test_broken_ones_are_an_error(self, tmp_path: Path, content: str) -> None:
        root = nnunet(tmp_path, ["a"])
        (root / "splits_final.json").write_text(content)
        with pytest.raises(InputError, match=r"should be a list of|cannot be read as JSON") as caught:
            scan(root)
        assert caught.value.file == str(root / "splits_final.json")

    def test_of_a_pattern_input_count_too(self, tmp_path: Path) -> None:
        touch(tmp_path, ["a_i.nii", "a.nii"])
        (tmp_path / "splits_final.json").write_text('[{"train": ["a"], "val": []}]')
        spec = {"kind": "pattern", "images": {"T1": "{case}_i.nii"}, "label": "{case}.nii"}
        assert scan(tmp_path, layout=spec).splits is not None


class TestOpen:
    def test_a_fault_stops(self, tmp_path: Path) -> None:
        root = nnunet(tmp_path, ["a", "b"])
        (root / "imagesTr/a_0001.nii.gz").unlink()
        (root / "labelsTr/b.nii.gz").unlink()
        with pytest.raises(InputError, match="channel T1 is missing") as caught:
            open_cohort(InputSpec(), root)
        assert caught.value.case == "a"
        assert "1 more fault(s)" in str(caught.value)
        assert "on_bad_case=drop" in str(caught.value)

    def test_or_its_case_is_dropped(self, tmp_path: Path) -> None:
        root = nnunet(tmp_path, ["a", "b"])
        (root / "imagesTr/a_0001.nii.gz").unlink()
        _, cohort, dropped = open_cohort(InputSpec(on_bad_case="drop"), root)
        assert [c.case for c in cohort.cases] == ["b"]
        assert [f.case for f in dropped] == ["a"]

    def test_a_warning_does_not_stop(self, tmp_path: Path) -> None:
        root = nnunet(tmp_path, ["a"])
        touch(root, ["imagesTr/a_0002.nii.gz"])
        assert open_cohort(InputSpec(), root)[2] == []

    def test_nothing_left(self, tmp_path: Path) -> None:
        (tmp_path / "labelsTr").mkdir()
        with pytest.raises(InputError, match="no case was found"):
            open_cohort(InputSpec(), nnunet(tmp_path, []))

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="does not exist"):
            open_cohort(InputSpec(), tmp_path / "missing")
        layout = {"kind": "pattern", "table": "t.csv"}
        with pytest.raises(InputError, match="does not exist"):
            open_cohort(InputSpec.model_validate({"layout": layout}), tmp_path / "missing")
        with pytest.raises(InputError, match="no known layout was recognised"):
            open_cohort(InputSpec(), tmp_path)


class TestChosenSubjects:
    def test_others_are_as_if_they_were_not_there(self, tmp_path: Path) -> None:
        root = nnunet(tmp_path / "data", ["a_1", "a_2", "b_1", "c_1"])
        touch(root, ["masks/a.nii.gz", "masks/b.nii.gz", "masks/d.nii.gz"])
        folds = [{"train": ["a_1", "a_2", "b_1"], "val": ["c_1"]}, {"train": ["c_1"], "val": ["b_1"]}]
        (root / "splits_final.json").write_text(json.dumps(folds))
        fields = {"subject": "(.)_.", "masks": {"path": "masks/{subject}.nii.gz"}}
        cohort = open_cohort(InputSpec(**fields, subjects=("a", "c")), root)[1]
        assert [case.case for case in cohort.cases] == ["a_1", "a_2", "c_1"]
        # The mask of a subject that is left out may not come back as that of a stranger.
        assert [mask.subject for mask in cohort.masks] == ["a", "d"]
        assert cohort.splits is not None
        assert [(split.train, split.val) for split in cohort.splits] == [
            (("a_1", "a_2"), ("c_1",)),
            (("c_1",), ()),
        ]

    def test_a_fault_of_another_does_not_count(self, tmp_path: Path) -> None:
        root = nnunet(tmp_path, ["a", "b__syn001"])
        with pytest.raises(InputError, match="synthetic case"):
            open_cohort(InputSpec(), root)
        assert len(open_cohort(InputSpec(subjects=("a",)), root)[1].cases) == 1

    def test_a_broken_case_of_another_does_not_count_either(self, tmp_path: Path) -> None:
        """Nor does its mask, which is no stranger's."""
        root = nnunet(tmp_path, ["a", "b", "c_ses-1"])
        (root / "imagesTr/b_0001.nii.gz").unlink()
        (root / "labelsTr/c_ses-1.nii.gz").unlink()
        touch(root, ["masks/b.nii.gz", "masks/c_ses-2.nii.gz", "masks/d.nii.gz"])
        spec = InputSpec(subjects=("a",), masks={"path": "masks/{subject}.nii.gz"})
        _, cohort, dropped = open_cohort(spec, root)
        assert (cohort.excluded, dropped) == ({"b": "b", "c_ses-1": "c"}, [])
        assert [mask.subject for mask in cohort.masks] == ["d"]

    def test_a_broken_case_counts_where_ids_tell_no_subjects(self, tmp_path: Path) -> None:
        touch(tmp_path, ["a.nii", "b.nii", "al.nii"])
        (tmp_path / "t.csv").write_text("case,subject,label,T1\na,p,al.nii,a.nii\nb,p,bl.nii,b.nii\n")
        spec = {"layout": {"kind": "pattern", "table": "t.csv"}, "subjects": ["p"]}
        with pytest.raises(InputError, match=r"bl\.nii"):
            open_cohort(InputSpec.model_validate(spec), tmp_path)

    def test_unknown_ones_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"input\.subjects names 'z', which the data set has not"):
            open_cohort(InputSpec(subjects=("a", "z")), nnunet(tmp_path, ["a"]))
