from conformance.corpus.safetensors.format_page import PAGE, page
from conformance.corpus.safetensors.registry import differences


def test_page_in_docs_is_current():
    assert PAGE.read_text() == page(), "run python -m conformance.corpus.safetensors.format_page"


def test_page_names_every_difference():
    assert all(f"`{one.name}`" in page() for one in differences())
