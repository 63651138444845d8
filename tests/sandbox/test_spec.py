import pytest
from pydantic import ValidationError

from sandbox.spec import Artifact, InputFile, RunOutcome, RunResult, RunSpec, spec_digest
from tests.sandbox.specs import spec_of


def test_digest_survives_the_wire_and_changes_with_any_field() -> None:
    spec = spec_of(env={"B": "2", "A": "ä"}, command=("a", "b"))
    assert spec_digest(RunSpec.model_validate_json(spec.model_dump_json())) == spec_digest(spec)
    for change in ({"command": ("a",)}, {"env": {}}, {"image": "example:2"}):
        assert spec_digest(spec.model_copy(update=change)) != spec_digest(spec)


@pytest.mark.parametrize("path", ["", ".", "/etc/passwd", "../x", "a/../b", "a//b", "a/", "a\0b", "x" * 1025])
def test_a_path_never_leaves_its_folder(path: str) -> None:
    with pytest.raises(ValidationError):
        InputFile(path=path, sha256="0" * 64, size=0)


@pytest.mark.parametrize("path", ["a\nb", "a\x1b[2J", "invoice\u202efdp.exe", "a\u2028b", "a\u200bb", "\x7f"])
def test_an_artifacts_name_is_shown_as_it_is(path: str) -> None:
    with pytest.raises(ValueError, match="cannot be shown"):
        Artifact(path=path, sha256="0" * 64, size=0)
    assert Artifact(path="ü 名/€.txt", sha256="0" * 64, size=0)


def test_a_terminal_obeys_nothing_of_a_report() -> None:
    result = RunResult(outcome=RunOutcome.FAILED_EXIT, detail="a\0b\x1b[2Jc\x9bd\x07e\tf\ng é")
    assert result.detail == "ab[2Jcde\tf\ng é"
