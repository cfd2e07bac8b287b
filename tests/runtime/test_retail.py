"""The retail export: every row ends in an order, in a cancellation, or in a skip that says why; nothing raises."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import retail
from runtime.retail import Cancellation, Counts, Latest, Order, Planned, Reason, Skip
from runtime.retail.invoices import OPEN_INVOICES_MAX
from runtime.retail.rows import HEADER, INTEGER_MAX, LINE_BYTES_MAX

GOOD = "536365,71053,WHITE METAL LANTERN,6,2010-12-01 08:26:00,3.39,17850,United Kingdom"


def planned(*rows: str | bytes, header: str | bytes = HEADER) -> list[Planned]:
    encoded = [row if isinstance(row, bytes) else row.encode() for row in (header, *rows)]
    file = io.BytesIO(b"\n".join(encoded))
    return list(retail.plan(retail.read_rows(retail.read_lines(file))))


def row(
    invoice: str = "536365",
    sku: str = "71053",
    quantity: str = "6",
    price: str = "3.39",
    customer: str = "17850",
    country: str = "United Kingdom",
) -> str:
    return f"{invoice},{sku},A LANTERN,{quantity},2010-12-01 08:26:00,{price},{customer},{country}"


def order(items: tuple[tuple[str, int, int], ...], *, rows: int, invoice: str = "536365") -> Order:
    return Order(invoice, "17850", items, "United Kingdom", line_no=2, rows=rows)


def test_rows_that_share_an_invoice_are_one_order() -> None:
    assert planned(GOOD, row(sku="84029E", quantity="2", price="2.5")) == [
        order((("71053", 6, 339), ("84029E", 2, 250)), rows=2)
    ]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(GOOD + "\r", id="Windows line end"),
        pytest.param(
            GOOD.replace("WHITE METAL LANTERN", '"WHITE, ""METAL"" LANTERN"'), id="quotes"
        ),
        pytest.param(GOOD.replace("WHITE METAL LANTERN", " £ LANTERN "), id="not ASCII"),
        pytest.param(GOOD.replace("WHITE METAL LANTERN", ""), id="no description"),
        pytest.param(GOOD.replace(",6,", ", 6 ,").replace("71053", " 71053"), id="stray spaces"),
        pytest.param(GOOD.replace("3.39", "3.3900"), id="zeros after the pence"),
    ],
)
def test_a_good_row_may_look_like_this(text: str) -> None:
    assert planned(text) == [order((("71053", 6, 339),), rows=1)]


@pytest.mark.parametrize("header", ["\ufeff" + HEADER, HEADER + "\r", '"InvoiceNo"' + HEADER[9:]])
def test_a_header_may_have_a_byte_order_mark_quotes_or_windows_line_ends(header: str) -> None:
    assert planned(GOOD, header=header) == [order((("71053", 6, 339),), rows=1)]


@pytest.mark.parametrize(
    ("price", "minor"),
    [("0.01", 1), ("1", 100), ("2.55", 255), ("8.15", 815), ("21474836.47", INTEGER_MAX)],
)
def test_prices_become_exact_pence(price: str, minor: int) -> None:
    assert planned(row(price=price)) == [order((("71053", 6, minor),), rows=1)]


def test_a_stock_code_in_lower_case_is_the_same_product() -> None:
    assert planned(row(sku="85123a"), row(sku="85123A")) == [order((("85123A", 12, 339),), rows=2)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (row(customer=""), Reason.NO_CUSTOMER),
        (row(customer="17850.5"), Reason.CUSTOMER),
        (row(customer="x" * 30), Reason.CUSTOMER),
        (row(country=""), Reason.COUNTRY),
        (row(country="<b>"), Reason.COUNTRY),
        (row(price="0"), Reason.NO_PRICE),
        (row(price="-11062.06"), Reason.NO_PRICE),
        (row(price="0.001"), Reason.SUB_PENNY),
        (row(price="1.005"), Reason.SUB_PENNY),
        (row(price="21474836.48"), Reason.TOO_LARGE),
        *(
            (row(price=p), Reason.PRICE)
            for p in ("", "x", "NaN", "Infinity", "1e5", "1_0", ".5", "٣")
        ),
        (row(quantity="-6"), Reason.STOCK_CORRECTION),
        (row(quantity="0"), Reason.STOCK_CORRECTION),
        (row(quantity=str(INTEGER_MAX + 1)), Reason.TOO_LARGE),
        *(
            (row(quantity=q), Reason.QUANTITY)
            for q in ("", "x", "1.5", "1_0", "+6", "٣", "9" * 5000)
        ),
        *(
            (row(sku=sku), Reason.NOT_A_PRODUCT)
            for sku in (
                "POST",
                "D",
                "M",
                "BANK CHARGES",
                "AMAZONFEE",
                "C2",
                "DOT",
                "S",
                "PADS",
                "CRUK",
                "gift_0001_40",
                "",
                "71053*",
                "*",
                "a.b",
            )
        ),
        (row(invoice="A563185"), Reason.INVOICE),
        (row(invoice=""), Reason.INVOICE),
        (row(invoice="536365\u202e"), Reason.INVOICE),
        (row(invoice="\ufeff536365"), Reason.INVOICE),
        (row(invoice="C536365", quantity="6"), Reason.RETURNS_NOTHING),
        (row(invoice="C536365", quantity="-6", customer=""), Reason.NO_CUSTOMER),
        (row(invoice="C536365", quantity="-1", sku="D"), Reason.NOT_A_PRODUCT),
        (GOOD.replace(",United Kingdom", ""), Reason.COLUMNS),
        (GOOD + ",x", Reason.COLUMNS),
        ("{}", Reason.COLUMNS),
        (GOOD.replace("WHITE", '"WHITE'), Reason.NOT_CSV),
        (GOOD.replace("WHITE", '"WHITE"x'), Reason.NOT_CSV),
        (GOOD.replace("WHITE", "WHI\0TE"), Reason.CONTROL_CHARACTER),
        (GOOD.replace("WHITE", "WHI\rTE"), Reason.CONTROL_CHARACTER),
        (GOOD.replace("WHITE", "WHI\x1b[2JTE"), Reason.CONTROL_CHARACTER),
        (GOOD.replace("WHITE", "£").encode("latin-1"), Reason.NOT_UTF8),
        (GOOD.encode("utf-16"), Reason.NOT_UTF8),
        (GOOD.replace("WHITE", "x" * LINE_BYTES_MAX), Reason.TOO_LONG),
        (GOOD.replace("WHITE", "x" * LINE_BYTES_MAX * 3), Reason.TOO_LONG),
    ],
)
def test_a_row_that_is_no_order_is_skipped_with_its_reason(
    text: str | bytes, reason: Reason
) -> None:
    skip, after = planned(text, GOOD)
    assert planned(text) == [skip]
    assert isinstance(skip, Skip)
    assert (skip.line_no, skip.reason) == (2, reason)
    assert len(skip.seen) < 100
    assert skip.seen.isprintable()
    assert isinstance(after, Order)


def test_every_reason_for_skipping_a_line_reads_differently() -> None:
    assert len({reason.value for reason in Reason}) == len(Reason)


def test_blank_lines_are_no_rows_but_count_as_lines() -> None:
    assert planned("", "  ", row(price="0")) == [Skip(4, "536365", Reason.NO_PRICE, "0")]


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("", "nothing"),
        (HEADER.lower(), "invoiceno"),
        (HEADER.replace(",Country", ""), "CustomerID'"),
        (HEADER.replace(",", ";"), ";"),
        (GOOD, "536365"),
        (HEADER.encode("utf-16"), "UTF-16"),
        (b"\xff\xd8\xff\xe0 a picture", "picture"),
    ],
)
def test_a_wrong_header_is_one_clear_error(header: str | bytes, told: str) -> None:
    with pytest.raises(retail.RetailFormatError, match=told):
        planned(GOOD, header=header)


def test_invoices_may_interleave_and_come_in_the_order_of_their_first_rows() -> None:
    both = planned(row("1"), row("2"), row("1", sku="84029E"), row("2", sku="84029E"))
    assert [(one.invoice, one.rows) for one in both] == [("1", 2), ("2", 2)]  # type: ignore[union-attr]


def test_an_order_waits_for_its_rows_while_a_bounded_number_of_others_begins() -> None:
    others = [row(str(number)) for number in range(OPEN_INVOICES_MAX - 1)]
    first, *_ = planned(GOOD, *others, row(sku="84029E"))
    assert first == order((("71053", 6, 339), ("84029E", 6, 339)), rows=2)


def test_a_row_that_comes_after_its_order_is_skipped() -> None:
    others = [row(str(number)) for number in range(OPEN_INVOICES_MAX)]
    first, skip, *_ = planned(GOOD, *others, row(sku="84029E"))
    assert first == order((("71053", 6, 339),), rows=1)
    assert skip == Skip(OPEN_INVOICES_MAX + 3, "536365", Reason.LATE, "84029E")


def test_another_customers_row_is_not_put_on_the_order() -> None:
    skip, kept = planned(GOOD, row(customer="99999", sku="84029E"))
    assert skip == Skip(3, "536365", Reason.OTHER_CUSTOMER, "84029E")
    assert kept == order((("71053", 6, 339),), rows=1)


def test_a_product_at_a_second_price_is_skipped() -> None:
    skip, kept = planned(GOOD, row(price="3.40"))
    assert skip == Skip(3, "536365", Reason.OTHER_PRICE, "71053")
    assert kept == order((("71053", 6, 339),), rows=1)


def test_an_order_holds_a_hundred_products_and_more_of_each() -> None:
    *skips, kept = planned(
        *(row(sku=str(10_000 + n)) for n in range(102)), row(sku="10000"), row(sku="10099")
    )
    assert [skip.reason for skip in skips] == [Reason.TOO_MANY_LINES] * 2  # type: ignore[union-attr]
    assert isinstance(kept, Order)
    assert (len(kept.items), kept.rows) == (100, 102)
    assert kept.items[0] == ("10000", 12, 339)


@pytest.mark.parametrize("price", ["0.01", "21474836.47"])
def test_a_quantity_that_adds_up_beyond_the_limit_is_skipped(price: str) -> None:
    most = row(quantity=str(INTEGER_MAX), price=price)
    skip, kept = planned(most, row(quantity="1", price=price))
    assert skip == Skip(3, "536365", Reason.TOO_LARGE, "71053")
    assert isinstance(kept, Order)
    assert kept.items[0][1] == INTEGER_MAX


def test_a_total_never_passes_64_bits() -> None:
    most = [
        row(sku=sku, quantity=str(INTEGER_MAX), price="21474836.47")
        for sku in ("10000", "10001", "10002")
    ]
    skip, kept = planned(*most)
    assert skip == Skip(4, "536365", Reason.TOO_LARGE, "10002")
    assert isinstance(kept, Order)
    assert sum(quantity * price for _, quantity, price in kept.items) < 2**63


def test_a_c_invoice_is_one_cancellation_whatever_its_prices() -> None:
    assert planned(row("C1", quantity="-2"), row("C1", sku="84029e", quantity="-1", price="")) == [
        Cancellation("C1", "17850", ("71053", "84029E"), line_no=2, rows=2)
    ]


def test_a_cancellation_names_a_hundred_products() -> None:
    *skips, kept = planned(
        *(row("C1", sku=str(10_000 + n), quantity="-1") for n in [*range(102), 0])
    )
    assert [skip.reason for skip in skips] == [Reason.TOO_MANY_LINES] * 2  # type: ignore[union-attr]
    assert isinstance(kept, Cancellation)
    assert (len(kept.skus), kept.rows) == (100, 101)


def test_another_customers_row_is_not_put_on_the_cancellation() -> None:
    skip, kept = planned(row("C1", quantity="-1"), row("C1", customer="99999", quantity="-1"))
    assert skip == Skip(3, "C1", Reason.OTHER_CUSTOMER, "71053")
    assert isinstance(kept, Cancellation)
    assert kept.rows == 1


def test_a_cancellation_hits_that_customers_latest_earlier_order_of_the_product() -> None:
    latest = Latest()
    for one in planned(
        row("1"),
        row("2"),
        row("3", sku="84029E"),
        row("4", customer="99999"),
        row("5", sku="84029E"),
    ):
        assert isinstance(one, Order)
        latest.remember(one)
    assert latest.hit_by(Cancellation("C1", "17850", ("71053",), 0, 1)) == ("2",)
    assert latest.hit_by(Cancellation("C1", "17850", ("71053", "71053"), 0, 1)) == ("2",)
    assert latest.hit_by(Cancellation("C1", "17850", ("84029E", "71053", "22222"), 0, 1)) == (
        "5",
        "2",
    )
    assert latest.hit_by(Cancellation("C1", "99999", ("84029E",), 0, 1)) == ()


def test_counts_say_what_became_of_every_row() -> None:
    both = planned(
        row("C9", quantity="-1"),
        row("1"),
        row("1", sku="84029E"),
        row("C1", quantity="-1"),
        row(sku="POST"),
        row(sku="D"),
    )
    assert retail.counts(both) == Counts(
        orders=1,
        order_rows=2,
        cancellations=1,
        cancellation_rows=1,
        skipped={Reason.NOT_A_PRODUCT: 2, Reason.NO_EARLIER_ORDER: 1},
    )


# Whatever the file holds.

CELLS = st.one_of(
    st.sampled_from(
        [
            "1",
            "2",
            "C1",
            "71053",
            "84029e",
            "POST",
            "6",
            "-6",
            "3.39",
            "0",
            "0.001",
            "17850",
            "EIRE",
            '"',
            "",
        ]
    ),
    st.sampled_from(
        [str(INTEGER_MAX), "21474836.47", "9" * 30, "NaN", "1e9", "\0", "\r", "\ufeff"]
    ),
    st.text(max_size=5),
)
LIKELY = st.tuples(
    st.sampled_from(["1", "2", "C1", "C2"]),
    st.sampled_from(["71053", "84029e", "84029E", "POST"]),
    st.just("A LANTERN"),
    st.sampled_from(["6", "-6", str(INTEGER_MAX)]),
    st.just("2010-12-01"),
    st.sampled_from(["3.39", "21474836.47"]),
    st.sampled_from(["17850", "2", ""]),
    st.just("EIRE"),
)
ROWS = st.one_of(LIKELY, st.lists(CELLS, min_size=7, max_size=9)).map(",".join)


@given(st.binary() | st.text().map(str.encode))
def test_no_bytes_make_the_reader_raise_anything_but_a_format_error(content: bytes) -> None:
    for file in (content, HEADER.encode() + b"\n" + content):
        try:
            list(retail.plan(retail.read_rows(retail.read_lines(io.BytesIO(file)))))
        except retail.RetailFormatError as error:
            assert str(error).isprintable()  # noqa: PT017 - both outcomes are right; neither may be another error.


@given(st.lists(ROWS.map(lambda text: text.encode("utf-8", "surrogatepass")), max_size=30))
def test_every_row_is_accounted_for_and_every_order_can_be_placed(rows: list[bytes]) -> None:
    one_a_line = [row.replace(b"\n", b"") for row in rows]
    found = planned(*one_a_line)
    kept = sum(1 if isinstance(one, Skip) else one.rows for one in found)
    assert kept == sum(1 for row in one_a_line if row.strip())
    for one in found:
        if isinstance(one, Order):
            assert 1 <= len(one.items) <= 100
            assert len({sku for sku, _, _ in one.items}) == len(one.items)
            assert all(1 <= q <= INTEGER_MAX and price >= 1 for _, q, price in one.items)
            assert sum(q * price for _, q, price in one.items) < 2**63
