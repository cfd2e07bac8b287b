"""Amounts as people write them: minor units to major ones, by the currency's own number of decimals."""

# ISO 4217; all others have two decimals.
_NO_DECIMALS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"
_THREE_DECIMALS = "BHD IQD JOD KWD LYD OMR TND"
_DECIMALS = {
    **dict.fromkeys(_NO_DECIMALS.split(), 0),
    **dict.fromkeys(_THREE_DECIMALS.split(), 3),
}


def in_major_units(minor: int, currency: str) -> str:
    """`1530, "GBP"` is `15.30 GBP`; exact, without a float in between."""
    decimals = _DECIMALS.get(currency, 2)
    whole, part = divmod(abs(minor), 10**decimals)
    fraction = f".{part:0{decimals}d}" if decimals else ""
    return f"{'-' if minor < 0 else ''}{whole:,}{fraction} {currency}"
