//! Amounts: integers of minor units from end to end, and the exponents that say what they are.

use super::PrismEnum;

/// One of the 160 currencies of Prism's list, by its ISO 4217 alphabetic code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Currency(&'static str);

impl Currency {
    pub fn new(code: &str) -> Option<Self> {
        PrismEnum::Currency.by_name(code).filter(|(_, number)| *number != 0).map(|(name, _)| Self(name))
    }

    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// Digits behind the decimal point, by ISO 4217: USD 2, JPY 0, BHD 3, CLF 4.
    pub fn exponent(self) -> u8 {
        iso_currency::Currency::from_code(self.0)
            .and_then(|currency| currency.exponent())
            .and_then(|exponent| u8::try_from(exponent).ok())
            // Withdrawn (ANG, STD): both had two.
            .unwrap_or(2)
    }
}

/// More than nothing, of one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Money {
    minor_amount: i64,
    pub currency: Currency,
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the amount is not above zero")]
pub struct InvalidAmount;

impl Money {
    /// `minor_amount`: in the currency's minor units, above zero.
    pub fn new(minor_amount: i64, currency: Currency) -> Result<Self, InvalidAmount> {
        if minor_amount > 0 { Ok(Self { minor_amount, currency }) } else { Err(InvalidAmount) }
    }

    pub fn minor_units(self) -> i64 {
        self.minor_amount
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_iso_4217s() {
        for (code, exponent) in
            [("USD", 2), ("JPY", 0), ("BHD", 3), ("IDR", 2), ("CLF", 4), ("KWD", 3), ("ISK", 0)]
        {
            assert_eq!(Currency::new(code).unwrap().exponent(), exponent, "{code}");
        }
    }

    #[test]
    fn only_currencies_that_iso_has_withdrawn_are_taken_to_have_two() {
        let withdrawn: Vec<_> = (1..=160)
            .filter_map(|number| PrismEnum::Currency.by_number(number))
            .filter(|code| iso_currency::Currency::from_code(code).and_then(|c| c.exponent()).is_none())
            .collect();
        assert_eq!(withdrawn, ["ANG", "STD"]);
    }

    #[test]
    fn nothing_and_less_than_nothing_are_no_amounts() {
        let euro = Currency::new("EUR").unwrap();
        assert_eq!(Money::new(0, euro), Err(InvalidAmount));
        assert_eq!(Money::new(-1, euro), Err(InvalidAmount));
        assert_eq!(Money::new(i64::MAX, euro).unwrap().minor_units(), i64::MAX);
        assert_eq!(Currency::new("CURRENCY_UNSPECIFIED"), None);
        assert_eq!(Currency::new("EURO"), None);
    }
}
