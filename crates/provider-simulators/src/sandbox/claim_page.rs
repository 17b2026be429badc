//! Writes the claim page's HTML. It works without scripts, loads nothing, and escapes all text from outside.

use std::fmt::{self, Display, Write};
use std::sync::LazyLock;

use aws_lc_rs::digest;
use axum::http::HeaderValue;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use iso_currency::Currency;
use time::OffsetDateTime;
use time::format_description::StaticFormatDescription;
use time::macros::format_description;

use super::bank::{Field, Problem};
use super::claim_form::ClaimForm;
use super::link::Link;
use super::request::Amount;

const STYLE: &str = include_str!("claim.css");

/// The exponent of a currency that is not in the list, such as a withdrawn one.
const COMMON_EXPONENT: u16 = 2;

const DAY_AND_MINUTE: StaticFormatDescription =
    format_description!("[day padding:none] [month repr:long] [year], [hour]:[minute] UTC");
const MACHINE_READABLE: StaticFormatDescription =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

/// Allows only this page's own style, and a form that is sent to the page itself.
pub(super) static CONTENT_SECURITY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let style = BASE64_STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes()));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy).expect("base64 and plain ASCII")
});

/// A page without a form.
pub(super) enum Notice<'a> {
    Claimed(&'a Link),
    Paid(&'a Link),
    Failed(&'a Link),
    Reversed(&'a Link),
    ClaimedBefore(&'a Link),
    Cancelled(&'a Link),
    Expired(&'a Link),
    Unknown,
    Unreadable,
}

pub(super) fn notice(notice: &Notice<'_>) -> String {
    let (tone, heading, text, link) = match notice {
        Notice::Claimed(link) => (
            "good",
            "Your payout is on its way",
            "Payout status: PENDING. You can close this page.",
            Some(link),
        ),
        Notice::Paid(link) => (
            "good",
            "Your payout has arrived",
            "Payout status: SUCCESS. You can close this page.",
            Some(link),
        ),
        Notice::Failed(link) => (
            "neutral",
            "This payout failed",
            "Payout status: FAILED. Ask the sender of the link for a new one.",
            Some(link),
        ),
        Notice::Reversed(link) => (
            "neutral",
            "This payout came back to its sender",
            "Payout status: REVERSED. Ask the sender of the link for the reason.",
            Some(link),
        ),
        Notice::ClaimedBefore(link) => (
            "neutral",
            "This payout has been claimed already",
            "It can be claimed once only. Nothing was changed.",
            Some(link),
        ),
        Notice::Cancelled(link) => {
            ("neutral", "This payout was cancelled", "Ask the sender of the link for the reason.", Some(link))
        }
        Notice::Expired(link) => {
            ("neutral", "This link has expired", "Ask the sender of the link for a new one.", Some(link))
        }
        Notice::Unknown => {
            ("neutral", "There is no such payout link", "Check that the address was copied as a whole.", None)
        }
        Notice::Unreadable => (
            "neutral",
            "The form could not be read",
            "Go back to the page of the link and try once more.",
            None,
        ),
    };
    let amount = link.map(|link| summary(link)).unwrap_or_default();
    let main = format!(r#"<h1 class="{tone}">{heading}</h1>{amount}<p>{text}</p>"#);
    document(heading, &main)
}

/// Writes the claim form with the entered values and their problems.
pub(super) fn form(link: &Link, filled_in: &ClaimForm, problems: &[Problem]) -> String {
    let holder = Input {
        field: Field::AccountHolder,
        id: "account_holder",
        label: "Account holder",
        hint: "The name that the bank knows",
        attributes: r#"autocomplete="name" maxlength="140""#,
        value: &filled_in.account_holder,
    };
    let account = Input {
        field: Field::AccountNumber,
        id: "account_number",
        label: "IBAN or account number",
        hint: "For example DE89 3704 0044 0532 0130 00",
        attributes: r#"autocomplete="off" autocapitalize="characters" spellcheck="false" maxlength="50""#,
        value: &filled_in.account_number,
    };
    let main = format!(
        r#"<h1>Claim your payout</h1>
{summary}
{errors}
<form method="post" novalidate>
{holder}
{account}
<button type="submit">Claim {amount}</button>
</form>
<p class="small">Claim by <time datetime="{machine}">{until}</time>. Your bank details are checked and not stored.</p>"#,
        summary = summary(link),
        errors = error_summary(&[&holder, &account], problems),
        holder = holder.html(problems),
        account = account.html(problems),
        amount = escaped(&amount_text(&link.request.amount)),
        machine = moment(link.expires_at, MACHINE_READABLE),
        until = moment(link.expires_at, DAY_AND_MINUTE),
    );
    let title = format!("Claim {}", amount_text(&link.request.amount));
    let title = if problems.is_empty() { title } else { format!("Error: {title}") };
    document(&title, &main)
}

struct Input<'a> {
    field: Field,
    id: &'static str,
    label: &'static str,
    hint: &'static str,
    attributes: &'static str,
    value: &'a str,
}

impl Input<'_> {
    fn problem(&self, problems: &[Problem]) -> Option<&'static str> {
        problems.iter().find(|problem| problem.field == self.field).map(|problem| problem.message)
    }

    fn html(&self, problems: &[Problem]) -> String {
        let Self { id, label, hint, attributes, value, .. } = self;
        let problem = self.problem(problems);
        let error = problem.map(|text| format!(r#"<span class="error" id="{id}-error">{text}</span>"#));
        let state = match problem {
            Some(_) => format!(r#"aria-invalid="true" aria-describedby="{id}-hint {id}-error""#),
            None => format!(r#"aria-describedby="{id}-hint""#),
        };
        format!(
            r#"<div class="field">
<label for="{id}">{label}</label>
<span class="hint" id="{id}-hint">{hint}</span>
{error}<input id="{id}" name="{id}" type="text" required {attributes} {state} value="{value}">
</div>"#,
            error = error.unwrap_or_default(),
            value = escaped(value),
        )
    }
}

/// Lists the problems in one place, which screen readers announce. Each entry links to its field.
fn error_summary(inputs: &[&Input<'_>], problems: &[Problem]) -> String {
    let mut entries = String::new();
    for input in inputs {
        if let Some(problem) = input.problem(problems) {
            // Writing to a string cannot fail.
            let _ = write!(entries, r##"<li><a href="#{}">{problem}</a></li>"##, input.id);
        }
    }
    if entries.is_empty() {
        return entries;
    }
    format!(
        r#"<div class="errors" role="alert"><h2>Please check what you entered</h2><ul>{entries}</ul></div>"#
    )
}

fn summary(link: &Link) -> String {
    let amount = &link.request.amount;
    let destination = &link.request.destination_currency;
    let conversion = if *destination == amount.currency {
        String::new()
    } else {
        format!(r#"<span class="hint">Paid out in {}</span>"#, escaped(destination))
    };
    format!(r#"<p class="amount"><strong>{}</strong>{conversion}</p>"#, escaped(&amount_text(amount)))
}

fn document(title: &str, main: &str) -> String {
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{main}
</main>
<footer>Sandbox: no real money moves here.</footer>
</body>
</html>
"#,
        title = escaped(title),
    )
}

/// Formats an amount as `EUR 1,234.50`. It inserts the point by the currency's number of minor digits, without
/// arithmetic.
fn amount_text(amount: &Amount) -> String {
    let exponent = Currency::from_code(&amount.currency).and_then(Currency::exponent);
    let exponent = usize::from(exponent.unwrap_or(COMMON_EXPONENT));
    let digits = format!("{:0>width$}", amount.minor_amount, width = exponent + 1);
    let (whole, minor) = digits.split_at(digits.len() - exponent);
    let point = if minor.is_empty() { "" } else { "." };
    format!("{} {}{point}{minor}", amount.currency, with_separators(whole))
}

fn with_separators(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn moment(moment: OffsetDateTime, format: StaticFormatDescription) -> String {
    moment.format(format).unwrap_or_default()
}

/// Escapes text for an HTML element or a quoted attribute.
fn escaped(text: &str) -> impl Display {
    struct Escaped<'a>(&'a str);
    impl Display for Escaped<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.chars().try_for_each(|character| match character {
                '&' => f.write_str("&amp;"),
                '<' => f.write_str("&lt;"),
                '>' => f.write_str("&gt;"),
                '"' => f.write_str("&quot;"),
                '\'' => f.write_str("&#39;"),
                other => f.write_char(other),
            })
        }
    }
    Escaped(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_shown_by_their_currencys_minor_digits() {
        let table = [
            (1, "EUR", "EUR 0.01"),
            (1250, "EUR", "EUR 12.50"),
            (123_456_789, "USD", "USD 1,234,567.89"),
            (1, "JPY", "JPY 1"),
            (100_000, "JPY", "JPY 100,000"),
            (5, "BHD", "BHD 0.005"),
            (1250, "ANG", "ANG 12.50"),
            (1_234_567, "BHD", "BHD 1,234.567"),
            (i64::MAX, "EUR", "EUR 92,233,720,368,547,758.07"),
        ];
        for (minor_amount, currency, shown) in table {
            assert_eq!(amount_text(&Amount { minor_amount, currency: currency.to_owned() }), shown);
        }
    }

    #[test]
    fn what_is_not_ours_is_escaped() {
        assert_eq!(
            escaped(r#"<a href="x">O'N & Co"#).to_string(),
            "&lt;a href=&quot;x&quot;&gt;O&#39;N &amp; Co"
        );
    }
}
