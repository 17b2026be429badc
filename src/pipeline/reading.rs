//! Reads a delivery: its properties, its body, and its connector account. It rejects everything that is invalid.

use super::{Pipeline, headers::merchant_id};
use crate::{
    connectors::Account,
    contract,
    domain::{CreateLink, Rejection, RejectionCode, did_you_mean},
    rabbitmq::Delivery,
};

/// A decoded job, and the account that is called for it.
pub(super) struct Readable<'a> {
    pub(super) job: Box<CreateLink>,
    pub(super) account: &'a Account,
}

impl Pipeline {
    /// Checks the properties of a delivery: a job, or a message about a link.
    pub(super) fn read_properties(&self, delivery: &Delivery) -> Result<(), Rejection> {
        if delivery.is_unreadable {
            return Err(invalid(
                "properties",
                "The message's properties cannot be read: strings must be UTF-8, and headers well-formed.",
            ));
        }
        if let Some(withheld) = &delivery.withheld {
            return Err(Rejection::invalid(
                "",
                format!("The message is larger than 256 KiB. It has {} bytes.", withheld.bytes),
            ));
        }
        if delivery.content_type().is_some_and(|kind| !is_json(kind)) {
            return Err(invalid("content_type", "The content type is not application/json."));
        }
        if delivery.content_encoding().is_some_and(is_compressed) {
            return Err(invalid(
                "content_encoding",
                "The content encoding says that the message is compressed: publish uncompressed JSON without a content encoding.",
            ));
        }
        // If a numeric identifier were ignored, the payout would belong to another merchant.
        for name in ["x-merchant-id", "x-connector"] {
            if delivery.is_unclear(name) {
                return Err(invalid(
                    name,
                    "The header must be a string and occur once: a number is not a string.",
                ));
            }
        }
        // Properties are stored in the record too.
        for (name, value) in [
            ("x-merchant-id", Some(merchant_id(delivery))),
            ("reply_to", delivery.reply_to()),
            ("correlation_id", delivery.correlation_id()),
        ] {
            if value.is_some_and(|value| value.len() > 255 || value.chars().any(char::is_control)) {
                return Err(invalid(
                    name,
                    "The value is longer than 255 bytes or has a control character, such as a line end: shorten it, \
                     and remove control characters.",
                ));
            }
        }
        if delivery.reply_to().is_some_and(|queue| self.settings.names.is_own_queue(queue)) {
            return Err(invalid(
                "reply_to",
                "The reply queue is one of the worker's own queues: use a queue of your own.",
            ));
        }
        Ok(())
    }

    pub(super) fn read(&self, delivery: &Delivery) -> Result<Readable<'_>, Rejection> {
        self.read_properties(delivery)?;
        let (job, ignored) =
            contract::create_link_noting(&delivery.body, delivery.message_id(), &self.settings.decode)?;
        self.ignored_fields.count(ignored, &self.metrics);
        let job = Box::new(job);
        if let Some(url) = &job.webhook_url
            && let Err(error) = self.webhooks.check(url.url())
        {
            return Err(invalid(
                "webhook_url",
                &format!("No webhook can be delivered to this URL: {error}."),
            ));
        }
        let named = delivery.header("x-connector");
        let account = self.connectors.choose(named).ok_or_else(|| self.unknown_connector(named))?;
        account.connector.supports(&job)?;
        Ok(Readable { job, account })
    }

    fn unknown_connector(&self, named: Option<&str>) -> Rejection {
        let names = || self.connectors.iter().map(|account| &*account.name);
        let message = match named {
            None => format!(
                "The job names no connector, and the worker has no default (jobs.default_connector). Configured connectors: {}.",
                listed(names())
            ),
            Some(named) => match did_you_mean(named, names()).as_str() {
                "" => {
                    format!(
                        "No connector of this name is configured. Configured connectors: {}.",
                        listed(names())
                    )
                }
                meant => format!("No connector of this name is configured.{meant}"),
            },
        };
        Rejection { code: RejectionCode::UnknownConnector, message, field: Some("x-connector".to_owned()) }
    }
}

fn invalid(field: &str, message: &str) -> Rejection {
    Rejection { code: RejectionCode::InvalidJob, message: message.to_owned(), field: Some(field.to_owned()) }
}

fn is_json(content_type: &str) -> bool {
    content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// Returns whether a content encoding is a compression (RFC 9110, section 8.4.1, and later ones). Any other one, such
/// as the `utf-8` of kombu, is ignored.
fn is_compressed(content_encoding: &str) -> bool {
    ["gzip", "x-gzip", "deflate", "compress", "x-compress", "br", "zstd"]
        .iter()
        .any(|name| content_encoding.trim().eq_ignore_ascii_case(name))
}

/// Lists at most `MAX_NAMES` names, and the number of the others.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const MAX_NAMES: usize = 10;
    let names: Vec<&str> = names.collect();
    let more = names.len().saturating_sub(MAX_NAMES);
    let shown = names[..names.len() - more].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_recognized_with_parameters_and_in_any_case() {
        for kind in ["application/json", "application/json; charset=utf-8", " Application/JSON ;x"] {
            assert!(is_json(kind), "{kind:?}");
        }
        for kind in ["", "text/plain", "application/jsonl", "application/problem+json"] {
            assert!(!is_json(kind), "{kind:?}");
        }
    }

    #[test]
    fn only_a_compression_counts_as_a_content_encoding() {
        for encoding in ["gzip", " GZIP ", "br", "zstd"] {
            assert!(is_compressed(encoding), "{encoding:?}");
        }
        for encoding in ["", "utf-8", "identity", "binary"] {
            assert!(!is_compressed(encoding), "{encoding:?}");
        }
    }

    #[test]
    fn a_long_list_of_names_ends_with_a_number() {
        let names: Vec<String> = (1..=12).map(|number| format!("c{number}")).collect();
        let listed = |count: usize| listed(names.iter().take(count).map(String::as_str));
        assert_eq!(listed(2), "c1, c2");
        assert_eq!(listed(12), "c1, c2, c3, c4, c5, c6, c7, c8, c9, c10 and 2 more");
    }
}
