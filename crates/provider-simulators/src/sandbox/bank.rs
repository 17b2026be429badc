//! Checks bank details lightly, to catch typing errors.

/// A field of the form, with its problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) field: Field,
    pub(super) message: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    AccountHolder,
    AccountNumber,
}

const MAX_HOLDER: usize = 140;

pub(super) fn check_holder(holder: &str) -> Result<(), Problem> {
    let problem = |message| Err(Problem { field: Field::AccountHolder, message });
    match holder.trim() {
        "" => problem("Enter the name of the account holder."),
        holder if holder.chars().count() > MAX_HOLDER => problem("Use at most 140 characters for the name."),
        holder if holder.chars().any(char::is_control) => {
            problem("Use letters, spaces and punctuation only.")
        }
        _ => Ok(()),
    }
}

/// Accepts an IBAN with a correct checksum, or 4 to 20 digits. Spaces and hyphens do not count.
pub(super) fn check_account(account: &str) -> Result<(), Problem> {
    let problem = |message| Err(Problem { field: Field::AccountNumber, message });
    let account: String = account.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
    if account.is_empty() {
        return problem("Enter an IBAN or an account number.");
    }
    if account.bytes().all(|byte| byte.is_ascii_digit()) {
        let fits = (4..=20).contains(&account.len());
        return if fits { Ok(()) } else { problem("An account number has 4 to 20 digits.") };
    }
    if is_iban(&account) {
        Ok(())
    } else {
        problem("This is not a valid IBAN. Check it for a mistyped character.")
    }
}

/// Says whether it is an IBAN (ISO 13616): two letters, two digits, up to 30 letters and digits, and a remainder by
/// 97 of 1 (ISO 7064).
fn is_iban(account: &str) -> bool {
    let bytes = account.as_bytes();
    let formed = (15..=34).contains(&bytes.len())
        && bytes[..2].iter().all(u8::is_ascii_alphabetic)
        && bytes[2..4].iter().all(u8::is_ascii_digit)
        && bytes[4..].iter().all(u8::is_ascii_alphanumeric);
    formed && remainder_by_97(bytes[4..].iter().chain(&bytes[..4])) == 1
}

/// Computes the remainder of the number in which A is written as 10, B as 11, …, Z as 35.
fn remainder_by_97<'a>(characters: impl Iterator<Item = &'a u8>) -> u32 {
    characters.fold(0, |remainder, &character| {
        let value = char::from(character).to_digit(36).unwrap_or_default();
        let shift = if value < 10 { 10 } else { 100 };
        (remainder * shift + value) % 97
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_accounts_pass() {
        // These are examples of the SWIFT registry of IBAN formats.
        for account in [
            "DE89 3704 0044 0532 0130 00",
            "gb29nwbk60161331926819",
            "NO93-8601-1117-947",
            "MT84MALT011000012345MTLCAST001S",
            "1234",
            "0532013000",
        ] {
            assert_eq!(check_account(account), Ok(()), "{account}");
        }
    }

    #[test]
    fn slips_of_the_finger_do_not() {
        for account in [
            "",
            " - ",
            "123",
            "123456789012345678901",
            "DE89 3704 0044 0532 0130 01",
            "DE89",
            "D389370400440532013000",
            "hello",
            "١٢٣٤٥",
        ] {
            assert!(check_account(account).is_err(), "{account}");
        }
        for holder in ["", "   ", "Ada\u{7}", &"x".repeat(141)] {
            assert!(check_holder(holder).is_err(), "{holder:?}");
        }
        assert_eq!(check_holder("Ngô Bảo Châu"), Ok(()));
    }
}
