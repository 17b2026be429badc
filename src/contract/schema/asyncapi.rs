//! The contract as `AsyncAPI` 3.0: channels, operations and messages, as an upstream system and a merchant see them.

use serde_json::{Value, json};

use super::{DIALECT, definitions::with_definitions, job, outputs};
use crate::domain::EventType;

/// The media type of a JSON Schema 2020-12 payload in `AsyncAPI` 3.0.
const SCHEMA_FORMAT: &str = "application/schema+json;version=draft-2020-12";

/// Returns the `AsyncAPI` document. The names of queues and exchanges are the configuration's defaults.
pub fn asyncapi() -> Value {
    let payload = |message: &str, schema: Value| {
        // References of the document count from its root.
        let mut schema = with_definitions(schema, &format!("#/components/messages/{message}/payload/schema"));
        schema["$schema"] = DIALECT.into();
        json!({"schemaFormat": SCHEMA_FORMAT, "schema": schema})
    };
    let text = || json!({"type": "string"});
    let types: Vec<&str> = EventType::ALL.iter().map(|event| event.as_str()).collect();
    let link_request = |message: &str| {
        payload(
            message,
            json!({
                "type": "object",
                "required": ["merchant_payout_id"],
                "properties": {"merchant_payout_id": {"type": "string", "minLength": 1, "maxLength": 255}},
            }),
        )
    };
    let ours = json!({"type": "object", "properties": {
        "x-merchant-id": text(), "x-connector": text(), "traceparent": text(), "tracestate": text(),
    }});
    let message = |name: &str, headers: &Value, payload: Value| json!({"name": name, "contentType": "application/json", "headers": headers, "payload": payload});
    let result_headers = json!({"type": "object", "properties": {
        "x-connector": text(), "x-replayed": {"type": "boolean"}, "traceparent": text(), "tracestate": text(),
    }});
    let webhook_headers = json!({"type": "object", "required": ["webhook-id", "webhook-timestamp", "webhook-signature"], "properties": {
        "webhook-id": {"type": "string", "format": "uuid"}, "webhook-timestamp": text(), "webhook-signature": text(),
    }});
    let queue = |name: &str| json!({"amqp": {"is": "queue", "queue": {"name": name, "durable": true}, "bindingVersion": "0.3.0"}});
    let reference = |kind: &str, name: &str| json!({"$ref": format!("#/{kind}/{name}")});
    let channel = |address: Value, message: &str, bindings: Value| {
        json!({
            "address": address,
            "messages": {message: reference("components/messages", message)},
            "bindings": bindings,
        })
    };
    let operation = |action: &str, channel: &str, message: &str, summary: &str| {
        json!({
            "action": action,
            "channel": reference("channels", channel),
            "messages": [{"$ref": format!("#/channels/{channel}/messages/{message}")}],
            "summary": summary,
        })
    };
    let exchange = json!({"amqp": {
        "is": "routingKey",
        "exchange": {"name": "payout_links.results", "type": "topic", "durable": true},
        "bindingVersion": "0.3.0",
    }});
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Payout link worker",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Jobs become payout links; results and webhooks announce what happens to them.",
            "license": {"name": env!("CARGO_PKG_LICENSE")},
        },
        "defaultContentType": "application/json",
        "channels": {
            "jobs": channel("payout_links.create".into(), "job", queue("payout_links.create")),
            "cancel": channel("payout_links.cancel".into(), "cancel", queue("payout_links.cancel")),
            "status": channel("payout_links.status".into(), "status", queue("payout_links.status")),
            "results": {
                "address": "{type}",
                "parameters": {"type": {"description": "The type of the event.", "examples": types}},
                "messages": {"result": reference("components/messages", "result")},
                "bindings": exchange,
            },
            "webhooks": channel(Value::Null, "webhook", json!({})),
        },
        "operations": {
            "takeJob": operation("receive", "jobs", "job", "Create a payout link"),
            "cancelLink": operation("receive", "cancel", "cancel", "Cancel an unclaimed link"),
            "askForStatus": operation("receive", "status", "status", "Ask for the status of a link"),
            "publishResult": operation("send", "results", "result", "Announce an event"),
            "deliverWebhook": operation("send", "webhooks", "webhook", "Announce an event to the merchant, at the job's webhook_url"),
        },
        "components": {"messages": {
            "job": message("job", &ours, payload("job", job::schema())),
            "cancel": message("cancel", &ours, link_request("cancel")),
            "status": message("status", &ours, link_request("status")),
            "result": message("result", &result_headers, payload("result", outputs::result())),
            "webhook": message("webhook", &webhook_headers, payload("webhook", outputs::webhook())),
        }},
    })
}
