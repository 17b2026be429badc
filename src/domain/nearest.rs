//! Suggests the known name that a misspelt name is closest to.

use strsim::osa_distance;

/// The longest name that is compared, in bytes.
const MAX_BYTES: usize = 64;

/// Returns the one known name that is nearest to the given name, if it is near enough to be a misspelling.
///
/// Capitals, hyphens and underscores make no difference. In names of up to four letters no letter may be replaced: such codes have
/// many neighbours with another meaning.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if given.is_empty() || given.len() > MAX_BYTES {
        return None;
    }
    let plain = |name: &str| -> String {
        name.chars().filter(|letter| letter.is_alphanumeric()).flat_map(char::to_lowercase).collect()
    };
    let given = plain(given);
    let mut best: Option<(usize, &str)> = None;
    let mut is_tied = false;
    for name in known {
        let other = plain(name);
        let distance = osa_distance(&given, &other);
        let letters = other.chars().count();
        let is_near = match letters {
            0..=4 => distance == 0 || (distance == 1 && !is_replaced(&given, &other)),
            5..=8 => distance <= 2,
            _ => distance <= 3,
        };
        if !is_near || distance >= letters {
            continue;
        }
        match best {
            Some((least, _)) if distance > least => {}
            Some((least, _)) if distance == least => is_tied = true,
            _ => (best, is_tied) = (Some((distance, name)), false),
        }
    }
    best.filter(|_| !is_tied).map(|(_, name)| name)
}

/// Returns whether the one difference is a replaced letter, and not an extra, a missing or a transposed one.
fn is_replaced(one: &str, other: &str) -> bool {
    let sorted = |text: &str| {
        let mut letters: Vec<char> = text.chars().collect();
        letters.sort_unstable();
        letters
    };
    one.chars().count() == other.chars().count() && sorted(one) != sorted(other)
}

/// Returns ` Did you mean "NAME"?`, or an empty string.
pub fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(given, known).map(|name| format!(" Did you mean \"{name}\"?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_what_was_meant_and_anything_else_nothing() {
        let fields = ["merchant_payout_id", "webhook_url", "amount", "address", "customer", "id", "value"];
        let currencies = ["EUR", "USD", "YER", "XAF", "XOF", "GBP", "ERN"];
        for (given, known, meant) in [
            ("webhook_ur", &fields[..], Some("webhook_url")),
            ("webhookurl", &fields, Some("webhook_url")),
            ("Amount", &fields, Some("amount")),
            ("adress", &fields, Some("address")),
            ("marchant-payout-id", &fields, Some("merchant_payout_id")),
            ("reference", &fields, None),
            ("x", &fields, None),
            ("", &fields, None),
            ("eur", &currencies, Some("EUR")),
            ("EURO", &currencies, Some("EUR")),
            ("EU", &currencies, Some("EUR")),
            ("GPB", &currencies, Some("GBP")),
            // Another currency's neighbour is no slip: nobody is sent to Yemen.
            ("YEN", &currencies, None),
            ("XXF", &currencies, None),
        ] {
            assert_eq!(nearest(given, known.iter().copied()), meant, "{given}");
        }
        assert_eq!(nearest(&"a".repeat(65), ["a"]), None);
        // Two that are equally near: neither.
        assert_eq!(nearest("line4", ["line1", "line2"]), None);
    }
}
