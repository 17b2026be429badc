//! Corrects a message with a JSON merge patch (RFC 7396).

use serde_json::{Map, Value};

use super::decode::repeats_a_field;

/// The reason why a message cannot be patched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The body is not JSON.
    #[error("the message is not JSON")]
    NotJson,
    /// Only one of the two would be left, and nobody chose which.
    #[error("the message has a field twice")]
    RepeatedField,
}

/// Returns the message with the patch merged into it. Numbers keep their digits.
///
/// # Errors
///
/// If the message is not JSON, or has a field twice.
pub fn merge_patch(body: &[u8], patch: &Value) -> Result<Vec<u8>, PatchError> {
    let text = std::str::from_utf8(body).map_err(|_| PatchError::NotJson)?;
    if repeats_a_field(text).ok_or(PatchError::NotJson)? {
        return Err(PatchError::RepeatedField);
    }
    let value: Value = serde_json::from_str(text).map_err(|_| PatchError::NotJson)?;
    Ok(merged(value, patch).to_string().into_bytes())
}

fn merged(target: Value, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut fields = match target {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    for (name, change) in patch {
        if change.is_null() {
            fields.remove(name);
        } else {
            let before = fields.remove(name).unwrap_or_default();
            fields.insert(name.clone(), merged(before, change));
        }
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(body: &str, patch: &str) -> Result<Value, PatchError> {
        let patched = merge_patch(body.as_bytes(), &serde_json::from_str(patch).unwrap())?;
        Ok(serde_json::from_slice(&patched).unwrap())
    }

    /// RFC 7396, appendix A.
    #[test]
    fn the_examples_of_the_standard_come_out_as_it_says() {
        for (body, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            assert_eq!(patched(body, patch), Ok(serde_json::from_str(result).unwrap()), "{body} {patch}");
        }
    }

    #[test]
    fn a_number_keeps_its_digits() {
        let patched = merge_patch(br#"{"a":12345678901234567890.10,"b":1}"#, &serde_json::json!({ "b": 2 }));
        assert_eq!(String::from_utf8(patched.unwrap()).unwrap(), r#"{"a":12345678901234567890.10,"b":2}"#);
    }

    #[test]
    fn a_message_with_a_field_twice_is_not_patched() {
        for body in [
            r#"{"amount":1,"amount":2}"#,
            r#"{"customer":{"id":"a","id":"b"}}"#,
            r#"{"merchant_payout_id":"a","merchantPayoutId":"b"}"#,
        ] {
            assert_eq!(patched(body, r#"{"c":1}"#), Err(PatchError::RepeatedField), "{body}");
        }
        assert_eq!(patched("canary", "{}"), Err(PatchError::NotJson));
        assert_eq!(merge_patch(b"\xff", &Value::Null), Err(PatchError::NotJson));
    }
}
