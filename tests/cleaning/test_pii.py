import pytest
from cleaning_support import run, step
from hypothesis import given
from hypothesis import strategies as st

from lmlab.cleaning import mask_emails, mask_ips, mask_phone_numbers


@pytest.mark.parametrize(
    "number", ["2831823829", "(283)-182-3829", "(283) 182 3829", "283-182-3829"]
)
def test_phone_numbers(number: str) -> None:
    text, count = mask_phone_numbers(f"Call me at {number} if you like; or {number}.")
    assert text == "Call me at |||PHONE_NUMBER||| if you like; or |||PHONE_NUMBER|||."
    assert count == 2


@pytest.mark.parametrize(
    "number",
    ["(283) 182-3829", "283.182.3829", "+1 283 182 3829", "1-283-182-3829", "+12831823829"],
)
def test_other_common_phone_numbers(number: str) -> None:
    assert mask_phone_numbers(f"at {number}, please") == ("at |||PHONE_NUMBER|||, please", 1)


@pytest.mark.parametrize(
    "text",
    ["28318238291", "+128318238291", "183-182-38291", "a2831823829", "12-345-678", "2020-10-11"],
)
def test_other_numbers_stay(text: str) -> None:
    assert mask_phone_numbers(text) == (text, 0)


def test_emails() -> None:
    assert mask_emails("Write to a.b+c@d-e.example.org.") == ("Write to |||EMAIL_ADDRESS|||.", 1)
    assert mask_emails("pl@x.ai and spl@x.ai") == ("|||EMAIL_ADDRESS||| and |||EMAIL_ADDRESS|||", 2)
    assert mask_emails("联系test@gmail.com吧") == ("联系|||EMAIL_ADDRESS|||吧", 1)
    assert mask_emails("meet @ noon, a@b, @name") == ("meet @ noon, a@b, @name", 0)


def test_ips() -> None:
    assert mask_ips("The server is 192.0.2.146.") == ("The server is |||IP_ADDRESS|||.", 1)
    assert mask_ips("255.255.255.255:80") == ("|||IP_ADDRESS|||:80", 1)
    for text in ("256.1.1.1", "1.2.3", "1.2.3.4.5", "192.0.2.300", "01.2.3.4"):
        assert mask_ips(text) == (text, 0)


@pytest.mark.parametrize("mask", [mask_emails, mask_phone_numbers, mask_ips])
def test_masked_strings_are_not_counted(mask: object) -> None:
    text = "|||EMAIL_ADDRESS||| |||PHONE_NUMBER||| |||IP_ADDRESS|||"
    assert mask(text) == (text, 0)  # type: ignore[operator]


@given(st.text(st.sampled_from("a1@.-() |\n2839"), max_size=200))
def test_masking_twice_changes_nothing_more(text: str) -> None:
    for mask in (mask_emails, mask_ips):
        masked, _ = mask(text)
        assert mask(masked) == (masked, 0)


@pytest.mark.parametrize("piece", ["a", "a.", "1", "1.", "a@", "@a.", "(283) ", "283-", "255."])
def test_long_texts_end(piece: str) -> None:
    """Patterns of quadratic time would need hours for a text of this size."""
    for mask in (mask_emails, mask_phone_numbers, mask_ips):
        mask(piece * 500_000)


def test_the_step_counts_each_kind() -> None:
    document = run(step("course", "pii"), "a@b.com, 10.0.0.1 and 283-182-3829 or c@d.org")
    assert document.text.startswith("|||EMAIL_ADDRESS|||, |||IP_ADDRESS||| and |||PHONE_NUMBER|||")
    assert document.scores == {"pii.emails": 2, "pii.phone_numbers": 1, "pii.ips": 1}
    only = run(step("course", "pii", emails=False), "a@b.com 10.0.0.1")
    assert only.text == "a@b.com |||IP_ADDRESS|||"
