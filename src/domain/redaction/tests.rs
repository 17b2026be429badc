use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use proptest::prelude::*;

use super::*;

fn redactor(secrets: &[&str]) -> Redactor {
    Redactor::new(secrets.iter().map(|secret| SecretString::from(*secret)))
}

#[test]
fn a_secret_is_found_in_every_spelling() {
    let all = redactor(&["4929420573595709", "sk_live_canary/42", "DE89370400440532013000", "Zoë Müller"]);
    for (text, clean) in [
        ("card 4929420573595709 declined", "card [REDACTED] declined"),
        ("card 4929 4205 7359 5709 declined", "card [REDACTED] declined"),
        ("card 4929-4205-7359-5709.", "card [REDACTED]."),
        ("IBAN de89 3704 0044 0532 0130 00", "IBAN [REDACTED]"),
        ("authorization: Bearer sk_live_canary/42", "authorization: Bearer [REDACTED]"),
        ("token SK_LIVE_CANARY/42", "token [REDACTED]"),
        (r"token sk_live_canary\/42", "token [REDACTED]"),
        (r#"{\"token\":\"sk_live\\u005fcanary\\/42\"}"#, r#"{\"token\":\"[REDACTED]\"}"#),
        ("?token=sk%5Flive%5fcanary%2F42&a=1", "?token=[REDACTED]&a=1"),
        ("?token=sk%255Flive%255fcanary%252F42", "?token=[REDACTED]"),
        ("name Zo%C3%AB%20M%C3%BCller", "name [REDACTED]"),
        (r"name Zo\u00eb M\u00fcller", "name [REDACTED]"),
        ("token sk&#95;live&#x5f;canary/42", "token [REDACTED]"),
        // Cut by the provider, at either end.
        ("card 492942057359570", "card [REDACTED]"),
        ("…0573595709 declined", "…[REDACTED] declined"),
        // Fewer than six characters do not identify a secret.
        ("card ending in 5709", "card ending in 5709"),
        ("the account is closed", "the account is closed"),
    ] {
        assert_eq!(all.redact(text), clean, "{text}");
    }
    for credentials in ["sk_live_canary/42:", "user:sk_live_canary/42", "xy sk_live_canary/42 z"] {
        for encoded in [BASE64_STANDARD.encode(credentials), BASE64_URL_SAFE_NO_PAD.encode(credentials)] {
            assert_eq!(all.redact(&format!("Basic {encoded}, 7")).replace('=', ""), "Basic [REDACTED], 7");
            for cut in 0..4 {
                assert_eq!(all.redact(&encoded[cut..]).replace('=', ""), "[REDACTED]");
            }
        }
    }
}

#[test]
fn a_short_secret_goes_with_its_word() {
    let all = redactor(&["7431", "Ada", "xy"]);
    for (text, clean) in [
        ("pin 7431 is wrong", "pin [REDACTED] is wrong"),
        ("pin x7431y is wrong", "pin [REDACTED] is wrong"),
        ("pin_7431: wrong", "pin_[REDACTED]: wrong"),
        ("pin %37431", "pin [REDACTED]"),
        ("customer ADA.", "customer [REDACTED]."),
        // Two characters are in many a word.
        ("xylophone", "xylophone"),
    ] {
        assert_eq!(all.redact(text), clean, "{text}");
    }
    let encoded = BASE64_STANDARD.encode("pin 7431");
    assert_eq!(all.redact(encoded.trim_end_matches('=')), "[REDACTED]");
}

/// A way to write a secret.
#[derive(Debug, Clone, Copy)]
enum Spelling {
    Plain,
    UpperCase,
    Grouped(char, usize),
    Base64,
    Base64OfMore,
    Percent,
    PercentTwice,
    JsonEscaped,
    JsonTwice,
}

fn spelled(secret: &str, spelling: Spelling) -> String {
    let percent = |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
    let escaped =
        |text: &str| -> String { text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect() };
    match spelling {
        Spelling::Plain => secret.to_owned(),
        Spelling::UpperCase => secret.to_uppercase(),
        Spelling::Grouped(separator, length) => {
            let letters: Vec<char> = secret.chars().collect();
            let groups: Vec<String> = letters.chunks(length).map(String::from_iter).collect();
            groups.join(&separator.to_string())
        }
        Spelling::Base64 => BASE64_STANDARD.encode(secret),
        Spelling::Base64OfMore => BASE64_URL_SAFE_NO_PAD.encode(format!("id:{secret}:x")),
        Spelling::Percent => percent(secret),
        Spelling::PercentTwice => percent(secret).replace('%', "%25"),
        Spelling::JsonEscaped => escaped(secret),
        Spelling::JsonTwice => serde_json::to_string(&escaped(secret)).unwrap(),
    }
}

fn spelling() -> impl Strategy<Value = Spelling> {
    use Spelling::*;
    prop_oneof![
        Just(Plain),
        Just(UpperCase),
        (prop::sample::select(vec![' ', '-', '.', '/', '_', '\u{a0}']), 1_usize..6)
            .prop_map(|(separator, length)| Grouped(separator, length)),
        Just(Base64),
        Just(Base64OfMore),
        Just(Percent),
        Just(PercentTwice),
        Just(JsonEscaped),
        Just(JsonTwice),
    ]
}

/// Returns a run of six characters of a secret that a text still has, in any spelling.
fn leaks(secret: &str, text: &str) -> Option<String> {
    let letters: Vec<char> = secret.to_lowercase().chars().collect();
    let lower = text.to_lowercase();
    let runs = letters.windows(RUN).map(String::from_iter);
    let is_grouped = |run: &str| {
        // Only a run of letters and digits can be found in groups.
        let close = |c: &char| c.is_alphanumeric();
        run.chars().all(|c| c.is_alphanumeric())
            && lower
                .replace("[redacted]", "\n\n")
                .split("\n\n")
                .any(|part| part.chars().filter(close).collect::<String>().contains(run))
    };
    let spellings = |run: &str| {
        let upper = [run.to_owned(), spelled(run, Spelling::Percent), spelled(run, Spelling::JsonEscaped)];
        upper.map(|spelled| spelled.to_lowercase())
    };
    runs.into_iter()
        .find(|run| spellings(run).iter().any(|spelled| lower.contains(spelled)) || is_grouped(run))
}

/// Returns Base64 stretches that are left, read from each of their first four letters.
fn base64_leaks(secret: &str, text: &str) -> bool {
    let runs: Vec<String> = secret.chars().collect::<Vec<_>>().windows(RUN).map(String::from_iter).collect();
    text.split(|c: char| !(c.is_ascii_alphanumeric() || "+/-_".contains(c))).any(|stretch| {
        (0..stretch.len().min(4)).any(|begin| {
            let whole = stretch[begin..].replace('+', "-").replace('/', "_");
            let whole = &whole[..whole.len() / 4 * 4];
            let read = BASE64_URL_SAFE_NO_PAD.decode(whole).unwrap_or_default();
            let read = String::from_utf8_lossy(&read);
            runs.iter().any(|run| read.contains(run.as_str()))
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_run_of_six_characters_of_a_secret_comes_out(
        secret in prop_oneof![
            "[0-9]{12,19}",
            "[A-Za-z0-9_-]{6,40}",
            "[a-zA-Zäöüßéñ]{3,12} [a-zA-Zäöüßéñ]{3,12}",
            "[ -~]{6,24}",
        ],
        spelling in spelling(),
        (before, after) in ("[ -~]{0,12}", "[ -~]{0,12}"),
        (first, last) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
    ) {
        let text = format!("{before} {} {after}", spelled(&secret, spelling));
        // Cut anywhere, before it is redacted and after.
        let letters: Vec<char> = text.chars().collect();
        let (first, last) = (first.index(letters.len() + 1), last.index(letters.len() + 1));
        let text = String::from_iter(&letters[first.min(last)..first.max(last)]);
        let clean = redactor(&[&secret]).redact(&text);
        prop_assert_eq!(leaks(&secret, &clean), None, "{} of {}", clean, text);
        prop_assert!(!base64_leaks(&secret, &clean), "{} of {}", clean, text);
    }

    #[test]
    fn no_text_makes_the_redactor_panic(secrets in prop::collection::vec(".{0,12}", 0..4), text in ".{0,80}") {
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        redactor(&secrets).redact(&text);
    }
}
