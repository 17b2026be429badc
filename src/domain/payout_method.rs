//! Payout methods: a table of the fields of each. No connector uses them yet; the worker validates and encrypts them.

use secrecy::SecretString;

use super::PrismEnum;

/// The kind of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// Identifies a person or an account: encrypted, never logged.
    Secret,
    /// Text that identifies nobody.
    Text,
    /// A country's ISO 3166-1 alpha-2 code.
    Country,
    /// A name of one of Prism's lists.
    Name(PrismEnum),
}

/// The name of a field, whether it is required, and its kind.
pub type MethodFields = &'static [(&'static str, bool, FieldKind)];

/// The key of a payout method, and its fields.
#[derive(Debug, Clone, Copy)]
pub struct MethodKind {
    /// The name on the wire: `ach`.
    pub name: &'static str,
    /// The fields that it may have.
    pub fields: MethodFields,
}

/// One payout method with the fields that the job gives.
pub struct PayoutMethod {
    /// The kind, with the fields that it allows.
    pub kind: MethodKind,
    /// The fields that the job gives, by their names on the wire.
    pub fields: Vec<(&'static str, MethodField)>,
}

/// A value of a payout method.
pub enum MethodField {
    /// A value that identifies a person or an account.
    Secret(SecretString),
    /// A value that identifies nobody.
    Clear(String),
}

impl std::fmt::Debug for PayoutMethod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PayoutMethod({} [REDACTED])", self.kind.name)
    }
}

use FieldKind::{Country, Name, Secret, Text};
use PrismEnum::{BankNames, CardNetwork, PaymentMethodType};

const ACH: MethodKind = MethodKind {
    name: "ach",
    fields: &[
        ("bank_name", false, Name(BankNames)),
        ("bank_country_code", false, Country),
        ("bank_city", false, Text),
        ("bank_account_number", false, Secret),
        ("bank_routing_number", false, Secret),
    ],
};
const BACS: MethodKind = MethodKind {
    name: "bacs",
    fields: &[
        ("bank_name", false, Name(BankNames)),
        ("bank_country_code", false, Country),
        ("bank_city", false, Text),
        ("bank_account_number", false, Secret),
        ("bank_sort_code", false, Secret),
    ],
};
const SEPA: MethodKind = MethodKind {
    name: "sepa",
    fields: &[
        ("bank_name", false, Name(BankNames)),
        ("bank_country_code", false, Country),
        ("bank_city", false, Text),
        ("iban", true, Secret),
        ("bic", false, Secret),
    ],
};
const PIX: MethodKind = MethodKind {
    name: "pix",
    fields: &[
        ("bank_name", false, Name(BankNames)),
        ("bank_branch", false, Secret),
        ("bank_account_number", true, Secret),
        ("pix_key", false, Secret),
        ("tax_id", false, Secret),
        ("ispb", false, Secret),
    ],
};
const PIX_KEY: MethodKind = MethodKind { name: "pix_key", fields: &[("pix_key", true, Secret)] };
const PIX_EMV: MethodKind = MethodKind { name: "pix_emv", fields: &[("emv", true, Secret)] };

/// The methods of `payout_method_data`. A job gives exactly one.
pub const METHODS: &[MethodKind] = &[
    MethodKind {
        name: "card",
        fields: &[
            ("card_number", true, Secret),
            ("card_exp_month", true, Secret),
            ("card_exp_year", true, Secret),
            ("card_holder_name", false, Secret),
            ("card_network", false, Name(CardNetwork)),
        ],
    },
    ACH,
    BACS,
    SEPA,
    PIX,
    PIX_KEY,
    PIX_EMV,
    MethodKind {
        name: "apple_pay_decrypt",
        fields: &[
            ("dpan", true, Secret),
            ("expiry_month", true, Secret),
            ("expiry_year", true, Secret),
            ("card_holder_name", false, Secret),
            ("card_network", false, Name(CardNetwork)),
        ],
    },
    MethodKind {
        name: "paypal",
        fields: &[
            ("email", false, Secret),
            ("telephone_number", false, Secret),
            ("paypal_id", false, Secret),
        ],
    },
    MethodKind { name: "venmo", fields: &[("telephone_number", false, Secret)] },
    MethodKind { name: "interac", fields: &[("email", false, Secret)] },
    MethodKind {
        name: "open_banking_uk",
        fields: &[("account_holder_name", true, Secret), ("iban", true, Secret)],
    },
    MethodKind {
        name: "passthrough",
        // A plain string in the proto, and a secret here.
        fields: &[("psp_token", true, Secret), ("token_type", true, Name(PaymentMethodType))],
    },
];

/// The methods of `source_bank_data`. A job gives exactly one.
pub const SOURCE_BANKS: &[MethodKind] = &[ACH, BACS, SEPA, PIX, PIX_KEY, PIX_EMV];
