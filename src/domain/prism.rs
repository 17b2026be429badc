//! Prism's enums: names and numbers. `prism-enums.json` is this project's copy; Prism never reuses a number.

use std::{collections::HashMap, sync::LazyLock};

/// One of Prism's enums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "Prism's enums by Prism's names")]
pub enum PrismEnum {
    Currency,
    CountryAlpha2,
    BankNames,
    CardNetwork,
    PaymentMethodType,
    PayoutPriority,
    DocumentType,
}

struct Values {
    by_name: HashMap<&'static str, i64>,
    by_number: HashMap<i64, &'static str>,
}

/// The values of each enum, in the order of [`PrismEnum::ALL`]: every job looks up several names.
static VALUES: LazyLock<[Values; PrismEnum::ALL.len()]> = LazyLock::new(|| {
    let mut lists: HashMap<&'static str, HashMap<&'static str, i64>> =
        serde_json::from_str(include_str!("prism-enums.json")).unwrap_or_default();
    let documents =
        HashMap::from([("CPF", 1), ("CNPJ", 2), ("PSN", 3), ("OTHER", 4), ("DOCUMENT_KIND_UNSPECIFIED", 0)]);
    lists.insert("DocumentType", documents);
    PrismEnum::ALL.map(|list| {
        let by_name = lists.remove(list.as_str()).unwrap_or_default();
        let by_number = by_name.iter().map(|(name, number)| (*number, *name)).collect();
        Values { by_name, by_number }
    })
});

impl PrismEnum {
    /// Every enum, in the order of its variants.
    const ALL: [Self; 7] = [
        Self::Currency,
        Self::CountryAlpha2,
        Self::BankNames,
        Self::CardNetwork,
        Self::PaymentMethodType,
        Self::PayoutPriority,
        Self::DocumentType,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Currency => "Currency",
            Self::CountryAlpha2 => "CountryAlpha2",
            Self::BankNames => "BankNames",
            Self::CardNetwork => "CardNetwork",
            Self::PaymentMethodType => "PaymentMethodType",
            Self::PayoutPriority => "PayoutPriority",
            Self::DocumentType => "DocumentType",
        }
    }

    fn values(self) -> &'static Values {
        &VALUES[self as usize]
    }

    /// Returns the enum's own spelling of a name, and its number.
    pub fn by_name(self, name: &str) -> Option<(&'static str, i64)> {
        self.values().by_name.get_key_value(name).map(|(name, number)| (*name, *number))
    }

    /// Returns the name of a number.
    pub fn by_number(self, number: i64) -> Option<&'static str> {
        self.values().by_number.get(&number).copied()
    }

    /// Returns the names sorted by their numbers, without the name of 0.
    pub fn names(self) -> Vec<&'static str> {
        let by_number = &self.values().by_number;
        let mut names: Vec<(&i64, &'static str)> = by_number
            .iter()
            .filter(|(number, _)| **number != 0)
            .map(|(number, name)| (number, *name))
            .collect();
        names.sort_unstable();
        names.into_iter().map(|(_, name)| name).collect()
    }

    /// Returns every name that is accepted, sorted, with its number.
    pub fn numbered(self) -> Vec<(&'static str, i64)> {
        let by_name = &self.values().by_name;
        let mut names: Vec<(&'static str, i64)> =
            by_name.iter().map(|(name, number)| (*name, *number)).collect();
        names.sort_unstable();
        names
    }

    /// Returns the official name for a common alias, or the given name.
    pub fn usual_name(self, given: &str) -> &str {
        match self {
            Self::CountryAlpha2 if given.eq_ignore_ascii_case("uk") => "GB",
            _ => given,
        }
    }

    /// Returns whether names that this version does not know are accepted.
    pub fn grows(self) -> bool {
        matches!(self, Self::BankNames | Self::CardNetwork | Self::PaymentMethodType)
    }
}

/// A country, by its ISO 3166-1 alpha-2 code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Country(&'static str);

impl Country {
    /// Looks up a country by its code.
    pub fn new(code: &str) -> Option<Self> {
        PrismEnum::CountryAlpha2.by_name(code).filter(|(_, number)| *number != 0).map(|(name, _)| Self(name))
    }

    /// Returns the name as it is written on the wire.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

/// The priority of a payout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "Prism's priorities by Prism's names")]
pub enum PayoutPriority {
    Instant,
    Fast,
    Regular,
    Wire,
    CrossBorder,
    Internal,
}

impl PayoutPriority {
    const ALL: [Self; 6] =
        [Self::Instant, Self::Fast, Self::Regular, Self::Wire, Self::CrossBorder, Self::Internal];

    /// Looks up a value by its name.
    pub fn new(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.as_str() == name)
    }

    /// Returns the name as it is written on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Instant => "INSTANT",
            Self::Fast => "FAST",
            Self::Regular => "REGULAR",
            Self::Wire => "WIRE",
            Self::CrossBorder => "CROSS_BORDER",
            Self::Internal => "INTERNAL",
        }
    }
}

/// The status of a payout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "Prism's statuses by Prism's names")]
pub enum PayoutStatus {
    Success,
    Failed,
    Cancelled,
    Initiated,
    Expired,
    Reversed,
    Pending,
    Ineligible,
    RequiresCreation,
    RequiresConfirmation,
    RequiresPayoutMethodData,
    /// Created and unclaimed.
    RequiresFulfillment,
    RequiresVendorAccountCreation,
    /// A final status that is newer than the published list.
    NotPermitted,
}

impl PayoutStatus {
    /// Every status.
    pub const ALL: [Self; 14] = [
        Self::Success,
        Self::Failed,
        Self::Cancelled,
        Self::Initiated,
        Self::Expired,
        Self::Reversed,
        Self::Pending,
        Self::Ineligible,
        Self::RequiresCreation,
        Self::RequiresConfirmation,
        Self::RequiresPayoutMethodData,
        Self::RequiresFulfillment,
        Self::RequiresVendorAccountCreation,
        Self::NotPermitted,
    ];

    /// Looks up a value by its name.
    pub fn new(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Returns whether a payout of this status is over, paid or not.
    pub fn is_over(self) -> bool {
        self == Self::Success || self.has_no_link()
    }

    /// Returns whether a payout of this status will never have a usable link.
    pub fn has_no_link(self) -> bool {
        use PayoutStatus::{Cancelled, Expired, Failed, Ineligible, NotPermitted, Reversed};
        matches!(self, Cancelled | Expired | Failed | Ineligible | NotPermitted | Reversed)
    }

    /// Returns the name as it is written on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "SUCCESS",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::Initiated => "INITIATED",
            Self::Expired => "EXPIRED",
            Self::Reversed => "REVERSED",
            Self::Pending => "PENDING",
            Self::Ineligible => "INELIGIBLE",
            Self::RequiresCreation => "REQUIRES_CREATION",
            Self::RequiresConfirmation => "REQUIRES_CONFIRMATION",
            Self::RequiresPayoutMethodData => "REQUIRES_PAYOUT_METHOD_DATA",
            Self::RequiresFulfillment => "REQUIRES_FULFILLMENT",
            Self::RequiresVendorAccountCreation => "REQUIRES_VENDOR_ACCOUNT_CREATION",
            Self::NotPermitted => "NOT_PERMITTED",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_enum_has_its_own_values() {
        for (place, list) in PrismEnum::ALL.into_iter().enumerate() {
            assert_eq!(list as usize, place, "{list:?}");
            assert!(!list.names().is_empty(), "{list:?}");
        }
    }

    #[test]
    fn the_lists_are_the_contracts() {
        let count = |list: PrismEnum| list.values().by_name.len() - 1;
        assert_eq!(count(PrismEnum::Currency), 160);
        assert_eq!(count(PrismEnum::CountryAlpha2), 249);
        assert_eq!(PrismEnum::Currency.by_number(45), Some("EUR"));
        for number in 1..=6 {
            assert!(PayoutPriority::new(PrismEnum::PayoutPriority.by_number(number).unwrap()).is_some());
        }
    }

    #[test]
    fn the_countries_are_those_of_iso_3166() {
        for (name, number) in &PrismEnum::CountryAlpha2.values().by_name {
            if *number != 0 {
                assert!(rust_iso3166::from_alpha2(name).is_some(), "{name}");
            }
        }
    }
}
