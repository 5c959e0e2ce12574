"""Unsafe constructs are found by tokens and syntax, and a comment covers only the statement it stands on."""

from __future__ import annotations

import pytest

from conformance.sources.unsafe import scan_python, scan_rust


def unexplained(found):
    return [item.line for item in found if not item.explained]


@pytest.mark.parametrize(
    "code",
    [
        "import ctypes\n",
        "from ctypes import CDLL\n",
        "x = np.frombuffer(mapping, dtype='f4')\n",
        "p = tensor.data_ptr()\n",
        "import triton\nkernel[grid](x, n)\n",
        "lib = loader.CDLL('libcuda.so')\n",
    ],
)
def test_python_constructs_without_a_comment_are_found(code):
    assert len(unexplained(scan_python(code))) >= 1


@pytest.mark.parametrize(
    "code",
    [
        "# SAFETY: the mapping outlives the array\nx = np.frombuffer(mapping)\n",
        "x = np.frombuffer(mapping)  # SAFETY: the mapping outlives the array\n",
        "# a longer reason\n# SAFETY: it outlives it\n# and more\nx = np.frombuffer(mapping)\n",
        "# SAFETY: one statement over lines\nx = wrap(\n    np.frombuffer(mapping),\n)\n",
    ],
)
def test_python_comments_on_or_directly_above_the_statement_count(code):
    assert unexplained(scan_python(code)) == []


@pytest.mark.parametrize(
    "code",
    [
        "# SAFETY: far away\n\nx = np.frombuffer(mapping)\n",
        "# SAFETY: of another statement\ny = 1\nx = np.frombuffer(mapping)\n",
        "y = 1  # SAFETY: trailing, of another statement\nx = np.frombuffer(mapping)\n",
        "text = '# SAFETY: in a string'\nx = np.frombuffer(mapping)\n",
        "# unsafe but not explained\nx = np.frombuffer(mapping)\n",
    ],
)
def test_python_comments_elsewhere_do_not_count(code):
    assert len(unexplained(scan_python(code))) == 1


def test_one_comment_does_not_cover_ten_calls():
    code = "# SAFETY: first only\n" + "x = np.frombuffer(mapping)\n" * 10

    assert len(unexplained(scan_python(code))) == 9


def test_python_words_in_strings_and_generic_aliases_are_not_constructs():
    code = "import triton\nx = 'ctypes.CDLL unsafe frombuffer'\ny = set[str]()\nz = dict[str, int]()\n"

    assert scan_python(code) == []


def test_a_dispatch_table_is_not_a_kernel_launch():
    assert scan_python("HANDLERS[key](value)\n") == []


def test_rust_unsafe_without_a_comment_is_found():
    assert unexplained(scan_rust("fn f() {\n    unsafe { g() }\n}\n")) == [2]


@pytest.mark.parametrize(
    "code",
    [
        "// SAFETY: checked above\nunsafe { g() }\n",
        "unsafe { g() } // SAFETY: checked above\n",
        "/* SAFETY: checked\n   above */\nunsafe { g() }\n",
        "// SAFETY: for all types\n#[inline]\n#[must_use]\nunsafe fn g() {}\n",
    ],
)
def test_rust_comments_on_or_directly_above_count(code):
    assert unexplained(scan_rust(code)) == []


@pytest.mark.parametrize(
    "code",
    [
        'let s = "unsafe { }";\n',
        "// unsafe in a comment\n",
        "/* unsafe /* nested unsafe */ unsafe */\n",
        'let s = r#"unsafe " unsafe"#;\n',
        "let c = 'u'; let unsafely = 1; fn unsafe_name() {}\n",
        'let s = "escaped \\" unsafe";\n',
    ],
)
def test_rust_words_that_are_not_the_keyword(code):
    assert scan_rust(code) == []


def test_rust_lifetimes_do_not_swallow_code():
    code = "impl<'a> S<'a> {\n    fn f(&'a self) { unsafe { g() } }\n}\n"

    assert unexplained(scan_rust(code)) == [2]


def test_rust_comment_far_above_covers_nothing():
    code = "// SAFETY: everything below\nfn f() {\n    unsafe { g() }\n    unsafe { h() }\n}\n"

    assert unexplained(scan_rust(code)) == [3, 4]


def test_a_library_that_parses_a_buffer_is_not_ctypes():
    assert scan_python("tokenizer = Tokenizer.from_buffer(raw)\n") == []
    assert len(unexplained(scan_python("import ctypes  # SAFETY: x\ny = ctypes.c_int.from_buffer(raw)\n"))) == 1
