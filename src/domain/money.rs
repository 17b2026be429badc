//! Amounts: integers of minor units, and the exponent of each currency.

use super::PrismEnum;

/// One of the 160 currencies of Prism's list, by its ISO 4217 alphabetic code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Currency(&'static str);

impl Currency {
    /// Looks up a currency by its alphabetic code.
    pub fn new(code: &str) -> Option<Self> {
        PrismEnum::Currency.by_name(code).filter(|(_, number)| *number != 0).map(|(name, _)| Self(name))
    }

    /// Returns the alphabetic code.
    pub fn as_str(self) -> &'static str {
        self.0
    }

    /// Returns the number of decimals by ISO 4217: USD 2, JPY 0, BHD 3, CLF 4.
    pub fn exponent(self) -> u8 {
        iso_currency::Currency::from_code(self.0)
            .and_then(|currency| currency.exponent())
            .and_then(|exponent| u8::try_from(exponent).ok())
            // Withdrawn currencies (ANG, STD) had two decimals.
            .unwrap_or(2)
    }
}

/// A positive amount of one currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Money {
    minor_amount: i64,
    /// The currency, which says how many decimals the minor units are.
    pub currency: Currency,
}

/// The amount is zero or negative.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the amount must be 1 or more, in minor units: 1250 for EUR 12.50")]
pub struct InvalidAmount;

impl Money {
    /// Creates an amount. `minor_amount` is in the currency's minor units.
    ///
    /// # Errors
    ///
    /// Returns an error if `minor_amount` is not positive.
    pub fn new(minor_amount: i64, currency: Currency) -> Result<Self, InvalidAmount> {
        if minor_amount > 0 { Ok(Self { minor_amount, currency }) } else { Err(InvalidAmount) }
    }

    /// Returns the amount in minor units.
    pub fn minor_units(self) -> i64 {
        self.minor_amount
    }

    /// Returns the amount in major units as decimal text with all digits: EUR 12.50, JPY 1250, BHD 1.250.
    pub fn major_units(self) -> String {
        let exponent = usize::from(self.currency.exponent());
        let digits = format!("{:0>width$}", self.minor_amount, width = exponent + 1);
        match digits.split_at(digits.len() - exponent) {
            (whole, "") => whole.to_owned(),
            (whole, fraction) => format!("{whole}.{fraction}"),
        }
    }

    /// Returns the amount in whole major units, or `None` if it has a fraction.
    pub fn whole_major_units(self) -> Option<i64> {
        let unit = 10_i64.pow(self.currency.exponent().into());
        (self.minor_amount % unit == 0).then_some(self.minor_amount / unit)
    }

    /// Returns whether decimal text (`12.5`, `12.50`, `12.500`) equals this amount.
    pub fn is_major_units(self, text: &str) -> bool {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let exponent = usize::from(self.currency.exponent());
        let significant = fraction.trim_end_matches('0');
        let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let minor = format!("{whole}{significant:0<exponent$}");
        !whole.is_empty()
            && all_digits(whole)
            && all_digits(fraction)
            && significant.len() <= exponent
            && minor.parse() == Ok(self.minor_amount)
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

    fn currencies() -> impl Iterator<Item = Currency> {
        (1..=400).filter_map(|number| PrismEnum::Currency.by_number(number)).filter_map(Currency::new)
    }

    #[test]
    fn major_units_are_a_shift_of_the_decimal_point() {
        for (code, minor, major) in [
            ("EUR", 1250, "12.50"),
            ("EUR", 5, "0.05"),
            ("JPY", 1250, "1250"),
            ("BHD", 1250, "1.250"),
            ("CLF", 1, "0.0001"),
            ("USD", i64::MAX, "92233720368547758.07"),
        ] {
            let money = Money::new(minor, Currency::new(code).unwrap()).unwrap();
            assert_eq!(money.major_units(), major);
            assert!(money.is_major_units(major));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_digit_is_lost_in_any_currency(minor in 1..=i64::MAX) {
            assert_eq!(currencies().count(), 160);
            for currency in currencies() {
                let money = Money::new(minor, currency).unwrap();
                let text = money.major_units();
                let fraction = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
                assert_eq!(fraction, usize::from(currency.exponent()), "{text}");
                // Back again, by digits alone.
                assert_eq!(text.replace('.', "").parse(), Ok(minor));
                assert!(money.is_major_units(&text));
                // As a JSON number it keeps them too, there and back.
                let number: serde_json::Number = serde_json::from_str(&text).unwrap();
                assert_eq!(serde_json::to_string(&number).unwrap(), text);
                // A neighbour is another amount.
                let other = Money::new(minor.checked_add(1).unwrap_or(minor - 1), currency).unwrap();
                assert!(!other.is_major_units(&text), "{text}");
                // Whole units only where nothing is left over.
                let unit = 10_i64.pow(currency.exponent().into());
                assert_eq!(money.whole_major_units().map(|whole| whole * unit), (minor % unit == 0).then_some(minor));
            }
        }
    }

    #[test]
    fn only_plain_decimals_are_amounts() {
        let euro = Money::new(1250, Currency::new("EUR").unwrap()).unwrap();
        for same in ["12.50", "12.5", "12.500", "012.5"] {
            assert!(euro.is_major_units(same), "{same}");
        }
        for other in ["12.51", "12.501", "1.25e1", "-12.50", "+12.50", ".125", "", "12,50", "1250"] {
            assert!(!euro.is_major_units(other), "{other}");
        }
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
