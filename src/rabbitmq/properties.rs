//! Reads the properties of messages, and copies those that may be published again.

use lapin::{
    BasicProperties,
    types::{AMQPValue, ShortString},
};

/// Returns a header that is a string. Names are compared without regard to case.
pub(super) fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a str> {
    let headers = properties.headers().as_ref()?.inner();
    let (_, value) = headers.iter().find(|(key, _)| key.as_str().eq_ignore_ascii_case(name))?;
    text(value)
}

/// Returns the text of a header's value.
pub(super) fn text(value: &AMQPValue) -> Option<&str> {
    match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str()),
        _ => None,
    }
}

/// Replaces the reply-to of an AMQP 1.0 sender: RabbitMQ closes the channel of a publisher that sends it without a
/// consumer there.
pub(super) fn is_own_pseudo_queue(reply_to: &ShortString) -> bool {
    reply_to.as_str() == "amq.rabbitmq.reply-to"
}

/// Copies the properties without those that must not be published again. lapin cannot remove one.
pub(super) fn republishable(properties: BasicProperties) -> BasicProperties {
    let mut copied = BasicProperties::default();
    macro_rules! copy {
        ($($property:ident $with:ident),*) => {
            $(if let Some(value) = properties.$property().clone() {
                copied = copied.$with(value);
            })*
        };
    }
    copy!(
        content_type with_content_type, content_encoding with_content_encoding, priority with_priority,
        correlation_id with_correlation_id, message_id with_message_id, timestamp with_timestamp,
        kind with_type, app_id with_app_id, cluster_id with_cluster_id
    );
    if let Some(reply_to) = properties.reply_to().clone().filter(|reply_to| !is_own_pseudo_queue(reply_to)) {
        copied = copied.with_reply_to(reply_to);
    }
    copied
}
