//! Compresses values before they are sealed. A request or a result consists mostly of the contract's own words, and
//! PostgreSQL writes every byte more than once (the row, its next version, the log of both). A usual request shrinks
//! to half its size or less.
//!
//! The form is `length (4, little-endian) ‖ LZ4 block`, against a dictionary that never changes: a value is only
//! readable with the dictionary that it was compressed with.
//!
//! Compression before encryption makes the length depend on the content. An attacker can use that only if the same
//! value holds a secret and text of the attacker. Here one sender writes all of a request, and one provider writes
//! all of a link.

use lz4_flex::block::{
    compress_into_with_dict, decompress_into_with_dict, get_maximum_output_size, uncompressed_size,
};

pub(super) fn compress(clear: &[u8], dictionary: &[u8]) -> Vec<u8> {
    let mut compressed = vec![0; LENGTH + get_maximum_output_size(clear.len())];
    let (length, block) = compressed.split_at_mut(LENGTH);
    #[expect(clippy::cast_possible_truncation, reason = "a request has 2^18 bytes at most")]
    length.copy_from_slice(&(clear.len() as u32).to_le_bytes());
    #[expect(clippy::expect_used, reason = "the buffer has the size of the worst case")]
    let length =
        compress_into_with_dict(clear, block, dictionary).expect("the buffer has the size of the worst case");
    compressed.truncate(LENGTH + length);
    compressed
}

const LENGTH: usize = 4;

/// Decompresses a value. Returns `None` if it was not compressed.
pub(super) fn decompress(compressed: &[u8], dictionary: &[u8]) -> Option<Vec<u8>> {
    let (length, block) = uncompressed_size(compressed).ok()?;
    let mut clear = vec![0; length];
    let decompressed = decompress_into_with_dict(block, &mut clear, dictionary).ok()?;
    (decompressed == length).then_some(clear)
}

/// The dictionary for requests, as `contract::encode` writes them. The most common parts are at the end, where LZ4
/// finds them first. It must never change.
pub(super) const REQUEST: &[u8] = concat!(
    r#","browser_info":{"color_depth":24,"screen_height":1080,"screen_width":1920,"java_enabled":false,"#,
    r#""java_script_enabled":true,"time_zone_offset_minutes":-60,"language":"en-US","accept_header":"text/html","#,
    r#""user_agent":"Mozilla/5.0 (","accept_language":"en-US","referer":"https://","ip_address":"","os_type":"","#,
    r#""os_version":"","device_model":""},"access_token":"","source_bank_data":{"payout_method_data":{"card":"#,
    r#"{"card_number":"","card_exp_month":"","card_exp_year":"","card_holder_name":"","card_network":"VISA"},"#,
    r#""ach":{"bank_name":"","bank_country_code":"US","bank_city":"","bank_account_number":"","#,
    r#""bank_routing_number":"","sepa":{"iban":"DE","bic":""},"connector_quote_id":"","connector_payout_id":"","#,
    r#""connector_payout_method_id":"","description":"","#,
    r#"{"merchant_payout_id":"po_","address":{"shipping_address":{"first_name":"","last_name":"","line1":"","#,
    r#""line2":"","line3":"","city":"","state":"","zip_code":"","country_alpha2_code":"US","email":""#,
    r#"@example.com","phone_number":"+","phone_country_code":"+"},"billing_address":{"first_name":"","last_name":""#,
    r#"","line1":"","city":"","zip_code":"","country_alpha2_code":"GB"}},"connector_feature_data":"{\"\":\""}","#,
    r#""amount":{"minor_amount":1000,"currency":"EUR"},"destination_currency":"EUR","customer":{"first_name":"","#,
    r#""last_name":"","connector_customer_id":"","phone_number":"","customer_document_details":{"document_type":"#,
    r#""CPF","document_number":""}},"customer":{"name":"","id":"","email":""},"priority":"REGULAR","webhook_url":"#,
    r#""https://"#,
)
.as_bytes();

/// The dictionary for results, as `contract::result` writes them. It must never change.
pub(super) const RESULT: &[u8] = concat!(
    r#","error":{"unified_details":{"code":"","message":"The connector ","user_guidance_message":""},"#,
    r#""connector_details":{"code":"","message":"","reason":""}},"status_code":400,"payout_status":"FAILED","#,
    r#"{"merchant_payout_id":"po_","payout_status":"REQUIRES_FULFILLMENT","connector_payout_id":"plink_","#,
    r#""payout_link":{"url":"https://","expires_at":"2026-12-01T00:00:00Z"},"error":null,"status_code":201}"#,
)
.as_bytes();

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest;

    use super::*;

    const JOB: &[u8] = br#"{"merchant_payout_id":"po_1001","address":{"billing_address":{"first_name":"Ada","last_name":"Lovelace","line1":"1 Main St","city":"London","zip_code":"N1","country_alpha2_code":"GB"}},"amount":{"minor_amount":1000,"currency":"USD"},"destination_currency":"USD","customer":{"name":"Ada Lovelace","id":"cus_1","email":"ada@example.com"},"priority":"REGULAR","webhook_url":"https://merchant.example/webhooks"}"#;

    #[test]
    fn compressed_values_decompress_to_the_original() {
        let long = JOB.repeat(600);
        for clear in [&b""[..], b"{}", b"\0\xff", JOB, &long, REQUEST, RESULT] {
            for dictionary in [REQUEST, RESULT] {
                assert_eq!(decompress(&compress(clear, dictionary), dictionary).unwrap(), clear);
            }
        }
    }

    /// Existing databases hold values that `lz4_flex` compressed with a table of its own, on the heap.
    #[test]
    fn values_of_earlier_versions_decompress() {
        let compressed = concat!(
            "970100000fda02074031303031020506de020f08020d30416461c602072d01804c6f76656c61636517000313029031204d61",
            "696e20537474010212046a4c6f6e646f6e2202104e7c000f24020a04ee010ffe010e3f555344fe0108001e0006a601004f00",
            "035c014741646120c00001f103406375735f9900046d013961646159030f7c011b045404132e4300b02f776562686f6f6b73",
            "227d",
        );
        let compressed: Vec<u8> = (0..compressed.len())
            .step_by(2)
            .map(|index| u8::from_str_radix(&compressed[index..index + 2], 16).unwrap())
            .collect();
        assert_eq!(decompress(&compressed, REQUEST).unwrap(), JOB);
        assert_eq!(compress(JOB, REQUEST), compressed);
    }

    #[test]
    fn a_usual_request_is_half_as_long() {
        let compressed = compress(JOB, REQUEST);
        assert!(compressed.len() * 2 <= JOB.len(), "{} of {}", compressed.len(), JOB.len());
    }

    #[test]
    fn uncompressed_values_are_rejected() {
        let compressed = compress(JOB, REQUEST);
        assert_eq!(decompress(JOB, REQUEST), None);
        assert_eq!(decompress(&compressed[..compressed.len() - 1], REQUEST), None);
        assert_eq!(decompress(b"\x01", REQUEST), None);
    }

    /// Existing databases hold values that were compressed with these dictionaries.
    #[test]
    fn the_dictionaries_are_what_they_always_were() {
        let start = |dictionary| digest::digest(&digest::SHA256, dictionary).as_ref()[..8].to_vec();
        assert_eq!(start(REQUEST), [0x52, 0xcc, 0x25, 0x0a, 0xf7, 0x8e, 0xf1, 0x3e]);
        assert_eq!(start(RESULT), [0x69, 0xe0, 0xb0, 0x84, 0x35, 0xe1, 0x12, 0x8e]);
    }
}
